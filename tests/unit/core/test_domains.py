from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.domains import MAX_DOMAIN_CHARACTERS, domain_in, parse_domain
from buildpool.core.naming import Installation
from buildpool.core.resources import pool_service
from samples import OWN_IMAGE, a_pool

USUAL = """\
search buildpool-system.svc.k8s.test svc.k8s.test k8s.test corp.example
nameserver 10.96.0.10
options ndots:5
"""


def found(resolv_conf: str) -> str | None:
    return domain_in(resolv_conf, "buildpool-system")


# sentence: (resolv.conf, domain)
FILES = {
    "a pod's, as kubelets write it": (USUAL, "k8s.test"),
    "with another name first, by dnsConfig": (
        "search corp.example buildpool-system.svc.cluster.local svc.cluster.local\n",
        "cluster.local",
    ),
    "a domain of one label": ("search buildpool-system.svc.kube svc.kube kube\n", "kube"),
    "with tabs, capitals, and a dot at the end": (
        "search\tBuildpool-System.SVC.K8s.Test.\tk8s.test\n",
        "k8s.test",
    ),
    "with a carriage return": ("search buildpool-system.svc.k8s.test\r\n", "k8s.test"),
    "without an end of its last line": ("search buildpool-system.svc.k8s.test", "k8s.test"),
    "of two lists, the last": (
        "search buildpool-system.svc.one\nsearch buildpool-system.svc.two\n",
        "two",
    ),
    "a list after the pod's, which the resolver takes instead": (
        f"{USUAL}domain corp.example\n",
        None,
    ),
    "a pod's of another namespace": (USUAL.replace("buildpool-system", "other"), None),
    "a namespace that only ends alike": (USUAL.replace("buildpool", "x-buildpool"), None),
    "a node's": ("search corp.example\nnameserver 192.0.2.1\n", None),
    "nothing": ("", None),
    "a comment": ("# search buildpool-system.svc.k8s.test\n;search a\n", None),
    "a list that is indented, which the resolver overlooks": (
        " search buildpool-system.svc.k8s.test\n",
        None,
    ),
    "an empty list": ("search\n", None),
    "no domain after the namespace": ("search buildpool-system.svc. svc.\n", None),
    "something that is no domain": ("search buildpool-system.svc.k8s_test\n", None),
    "something that is no domain, and then one": (
        "search buildpool-system.svc.-- buildpool-system.svc.k8s.test\n",
        "k8s.test",
    ),
    "an address": ("search buildpool-system.svc.10.0.0.1\n", None),
}


@pytest.mark.parametrize(("resolv_conf", "domain"), FILES.values(), ids=FILES)
def test_the_domain_is_found_in(resolv_conf: str, domain: str | None) -> None:
    assert found(resolv_conf) == domain


@pytest.mark.parametrize("written", ["k8s.test", "K8S.Test", "k8s.test."])
def test_a_domain_is_written_in_one_way(written: str) -> None:
    assert parse_domain(written) == "k8s.test"


@pytest.mark.parametrize(
    "written",
    [
        *("", ".", "..", ".k8s", "k8s..test", "k8s.test..", "-a.b", "a-.b", "a b", "a\n", "a/b"),
        *("1.2.3", "é.test", "\u212a8s.test", "*.k8s.test", "a" * 64, ".".join(["a" * 60] * 3)),
    ],
)
def test_what_is_no_domain_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"is no domain; write it|is longer than"):
        parse_domain(written)


NEAR = st.lists(
    st.sampled_from(
        [
            *("search", "domain", "nameserver", " ", "\t", "\n", "\r", "\0", ".", ".svc."),
            *("buildpool-system", "k8s.test", "-", "_", "#", ";", "é", "1"),
        ]
    )
    | st.text(max_size=3)
).map("".join)
"""Texts that are nearly the file of a pod."""


@given(st.text() | NEAR)
def test_whatever_a_file_holds_what_is_found_stands_in_it_and_is_a_domain(resolv_conf: str) -> None:
    domain = found(resolv_conf)
    if domain is not None:
        assert parse_domain(domain) == domain
        assert f"buildpool-system.svc.{domain}" in resolv_conf.lower()


@given(st.text() | NEAR)
def test_whatever_is_written_a_domain_is_refused_or_stays_as_it_is_once_parsed(text: str) -> None:
    try:
        domain = parse_domain(text)
    except ValueError:
        return
    assert domain == parse_domain(domain)
    assert len(domain) <= MAX_DOMAIN_CHARACTERS


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,14}[a-z0-9])?", fullmatch=True)


@given(st.lists(LABEL, min_size=1, max_size=5).map(".".join), LABEL)
def test_the_domain_of_a_pods_file_is_found(domain: str, namespace: str) -> None:
    file = f"search {namespace}.svc.{domain} svc.{domain} {domain}\nnameserver fd00::a\n"
    assert domain_in(file, namespace) == domain


def test_the_longest_domain_leaves_room_for_the_longest_service() -> None:
    domain = ".".join(["d" * 59, "d" * 60])
    assert len(parse_domain(domain)) == MAX_DOMAIN_CHARACTERS
    installation = Installation("n" * 63, OWN_IMAGE, "s" * 63, domain)
    service = pool_service(a_pool(routing="Gateway"), gateway=installation.gateway_host)
    assert len(service["spec"]["externalName"]) <= 253
