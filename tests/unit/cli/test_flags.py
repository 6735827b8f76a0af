from __future__ import annotations

from dataclasses import fields
from inspect import signature
from ipaddress import ip_network
from pathlib import Path

import pytest

from buildpool.cli.app import run
from buildpool.cli.flags import cluster_domain_of, networks_of
from buildpool.core.errors import BuildpoolError
from buildpool.settings import Settings


def test_networks_are_read() -> None:
    assert networks_of(["100.64.0.0/10", "fd00:ec2::254"]) == (
        ip_network("100.64.0.0/10"),
        ip_network("fd00:ec2::254/128"),
    )


@pytest.mark.parametrize("text", ["10.0.0.1/8", "example.com", "", "10.0.0.0/33"])
def test_what_is_no_network_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BuildpoolError, match=r"--deny-network: .*; write it like 10.0.0.0/8"):
        networks_of([text])


def test_every_setting_of_an_operator_has_a_flag() -> None:
    spelled = {"lease": "lease_name", "watch_namespaces": "watch_namespace"}
    spelled["denied_networks"] = "deny_network"
    settings = {spelled.get(each.name, each.name): each.default for each in fields(Settings)}
    flags = {each.name: each.default for each in signature(run).parameters.values()}
    assert settings.keys() <= flags.keys()
    for name in ("max_passes", "max_rollouts", "secret_reads_per_second", "health_port"):
        assert flags[name] == settings[name]


def the_domain(text: str, resolv_conf: Path) -> str:
    return cluster_domain_of(text, namespace="buildpool-system", resolv_conf=resolv_conf)


def test_the_domain_that_is_written_counts(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("search buildpool-system.svc.kube svc.kube kube\n")
    assert the_domain("K8s.test.", file) == "k8s.test"


def test_where_no_domain_is_written_the_pods_own_counts(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("search buildpool-system.svc.kube svc.kube kube\n")
    assert the_domain("", file) == "kube"


@pytest.mark.parametrize("content", [b"", b"search corp.example\n", b"\xff\xfe\0", b"a" * 200_000])
def test_where_no_file_names_a_domain_the_usual_one_is_assumed(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "resolv.conf"
    assert the_domain("", file) == "cluster.local"
    assert the_domain("", tmp_path) == "cluster.local"
    file.write_bytes(content)
    assert the_domain("", file) == "cluster.local"


@pytest.mark.parametrize("text", ["k8s_test", "10.0.0.1", "https://k8s.test", "a" * 64, " "])
def test_what_is_no_domain_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BuildpoolError, match=r"--cluster-domain: .* is no domain; write it like"):
        the_domain(text, Path("/etc/resolv.conf"))
