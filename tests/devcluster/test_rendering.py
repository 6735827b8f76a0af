"""Layout, configuration, components: what the cluster is told, without running any of it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from devcluster import config, golang
from devcluster.addresses import ADDRESSES, Family
from devcluster.components import Component, Kind
from devcluster.config import Programs
from devcluster.errors import DevclusterError
from devcluster.layout import Layout, layout
from devcluster.pki import create_pki, identities
from devcluster.plan import Plan
from go_program import PROGRAM

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def a_layout(state: Path = Path("/state")) -> Layout:
    return Layout(name="dev", state=state, cache=Path("/cache"))


def some_programs() -> Programs:
    return Programs(**{name: Path("/programs") / name for name in Programs.__slots__})


def a_plan(images: tuple[Path, ...] = (Path("/images/pause"),)) -> Plan:
    return Plan(programs=some_programs(), images=images, kubernetes="1.37")


def components(plan: Plan) -> dict[str, Component]:
    return {component.name: component for component in plan.components(a_layout())}


def test_folders_follow_the_xdg_rules() -> None:
    home = Path("/home/someone")
    assert layout("a", {}, home).state == home / ".local/state/buildpool-devcluster/a"
    assert layout("a", {"XDG_STATE_HOME": "/s"}, home).state == Path("/s/buildpool-devcluster/a")
    assert layout("a", {"XDG_CACHE_HOME": "/c"}, home).cache == Path("/c/buildpool-devcluster")


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a" * 31])
def test_a_name_that_is_no_node_name_is_refused(name: str) -> None:
    with pytest.raises(DevclusterError):
        layout(name, {}, Path("/home/someone"))


def test_a_state_folder_that_the_box_would_cover_is_refused() -> None:
    with pytest.raises(DevclusterError, match="replaces with its own"):
        layout("dev", {"XDG_STATE_HOME": "/var/lib/somewhere"}, Path("/root"))


def test_every_component_waits_only_for_components_that_exist() -> None:
    for plan in (a_plan(), a_plan(images=())):
        names = components(plan)
        assert {after for one in names.values() for after in one.after} <= set(names)


def test_nothing_waits_for_what_rests_until_it_is_asked_for() -> None:
    names = components(a_plan())
    resting = {name for name, one in names.items() if one.kind is Kind.ON_DEMAND}
    assert resting == {"buildkitd"}
    assert not resting & {after for one in names.values() for after in one.after}


def test_a_control_plane_runs_nothing_of_a_node() -> None:
    names = components(a_plan(images=()))
    assert not {"containerd", "kubelet", "kube-proxy", "coredns"} & set(names)
    assert {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} <= set(names)


def test_a_control_plane_of_ipv6_has_no_address_of_ipv4() -> None:
    plan = Plan(programs=some_programs(), images=(), kubernetes="1.37", family=Family.IPV6)
    for component in components(plan).values():
        told = f"{component.argv} {component.gate}"
        assert not re.search(r"\d+\.\d+\.\d+\.\d+", told), told


def test_nothing_of_a_control_plane_of_ipv6_listens_everywhere() -> None:
    """It would listen on IPv4, too, and a client that speaks nothing else would go unnoticed."""
    plan = Plan(programs=some_programs(), images=(), kubernetes="1.37", family=Family.IPV6)
    parts = components(plan)
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        assert "--bind-address=::1" in parts[name].argv
    assert "--listen-client-urls=http://[::1]:2379" in parts["etcd"].argv


@pytest.mark.parametrize("family", Family)
def test_a_plan_survives_its_file(tmp_path: Path, family: Family) -> None:
    plan = replace(a_plan(), family=family)
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("family", Family)
def test_every_rendered_file_can_be_read_by_its_reader(tmp_path: Path, family: Family) -> None:
    where = a_layout(tmp_path)
    create_pki(where.pki, "dev", NOW)
    files = config.render(where, some_programs(), family)
    for name, content in files.items():
        match Path(name).suffix:
            case ".toml":
                assert tomllib.loads(content)
            case ".json" | ".conflist":
                assert json.loads(content)
            case ".kubeconfig":
                read = yaml.safe_load(content)
                assert read["current-context"] == "devcluster"
                assert read["clusters"][0]["cluster"]["server"] == ADDRESSES[family].api_server
    assert {f"{user}.kubeconfig" for user in config.USERS} <= set(files)


def test_requests_are_audited_without_their_bodies() -> None:
    assert [rule["level"] for rule in json.loads(config.audit_policy())["rules"]] == ["Metadata"]
    flags = components(a_plan())["kube-apiserver"].argv
    assert f"--audit-log-path={a_layout().audit_log}" in flags


def test_certificates_verify_against_the_authority_and_keys_stay_private(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    create_pki(folder, "dev", NOW)
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    certificate = x509.load_pem_x509_certificate((folder / "apiserver.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    for addresses in ADDRESSES.values():
        valid = set(map(str, names.get_values_for_type(x509.IPAddress)))
        assert {addresses.loopback, addresses.service, addresses.node} <= valid
    certificate.verify_directly_issued_by(authority)
    assert PolicyBuilder().store(Store([authority])).time(NOW) is not None
    assert folder.stat().st_mode & 0o077 == 0
    for identity in identities("dev"):
        assert load_pem_private_key((folder / f"{identity.file}.key").read_bytes(), None)


def test_versions_come_from_go_mod() -> None:
    text = "require (\n\tk8s.io/api v0.37.2\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\n"
    assert golang.required_version(text, "k8s.io/kubernetes") == "v1.37.2"
    assert (
        golang.required_version("require k8s.io/kubernetes v1.0.0", "k8s.io/kubernetes") == "v1.0.0"
    )
    with pytest.raises(DevclusterError):
        golang.required_version(text, "k8s.io/kube")


ALL_MODULES = (*golang.MODULES, *golang.OLDER.values(), golang.HELM_3)


@pytest.mark.parametrize("module", ALL_MODULES, ids=lambda module: module.name)
def test_every_version_stamp_names_a_module_that_is_required(module: golang.GoModule) -> None:
    flags = golang.link_flags(module, (module.folder / "go.mod").read_text())
    assert flags.count("-X ") >= len(module.stamps)


def test_the_programs_are_those_of_the_modules_and_envoy() -> None:
    compiled = {module.name.replace("-", "_") for module in golang.MODULES}
    assert {*compiled, "control_plane", "envoy"} == set(Programs.__slots__)


def test_an_older_control_plane_has_the_newest_etcd_and_kubectl() -> None:
    names = components(a_plan(images=()))
    control_plane = {"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    where = {name: Path(one.argv[0]).parent.name for name, one in names.items()}
    assert {name for name, folder in where.items() if folder == "control_plane"} == control_plane
    assert {where["etcd"], where["objects"]} == {"kubernetes"}


@pytest.mark.parametrize(("version", "module"), golang.OLDER.items(), ids=golang.OLDER)
def test_an_older_control_plane_is_of_the_version_that_it_is_called(
    version: str, module: golang.GoModule
) -> None:
    assert golang.control_plane(version) is module
    assert golang.version_of(module, "k8s.io/kubernetes").startswith(f"v{version}.")
    flags = golang.link_flags(module, (module.folder / "go.mod").read_text())
    assert f"gitMinor={version.removeprefix('1.')}" in flags


def test_a_version_of_kubernetes_that_is_not_there_is_named_with_those_that_are() -> None:
    assert golang.control_plane(golang.newest()) is golang.KUBERNETES
    with pytest.raises(DevclusterError, match=r"there is no Kubernetes 1\.2") as refused:
        golang.control_plane("1.2")
    assert "1.31" in f"{refused.value.remedy}"


def test_a_frontend_has_sources_of_its_own_beside_the_tools_versions() -> None:
    shared = {golang.SOURCES / "tools" / name for name in ("go.mod", "go.sum")}
    assert set(golang.TOOLS.sources) == set(golang.DOCKERFILE_FRONTEND.sources) == shared
    own = golang.SOURCES / "tools" / "mockerfile" / "main.go"
    assert set(golang.MOCKERFILE.sources) == {*shared, own}


def test_a_module_may_lie_elsewhere_and_has_the_versions_of_the_tools() -> None:
    """So most of it is compiled already, and its library is of the daemon's version."""
    name = "github.com/moby/buildkit"
    assert {path.name for path in PROGRAM.sources} == {"go.mod", "go.sum", "main.go"}
    assert golang.version_of(PROGRAM, name) == golang.version_of(golang.TOOLS, name)


def test_go_sources_are_formatted() -> None:
    gofmt = Path(golang.find_go()).parent / "gofmt"
    folders = (golang.SOURCES, PROGRAM.folder)
    done = subprocess.run(
        (gofmt, "-l", *folders), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
