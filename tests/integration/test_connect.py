"""`kubectl buildpool` as its users run it, up to the point where builders would be needed.

What needs a node is in tests/e2e/test_connect.py. No operator runs: pools have the status, and
clients the Secrets, that a test gives them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from buildpool.core.pki import CertificateRequest, Use, issue, issue_authority
from cluster import PROJECT, Api, a_pool
from gateway.ports import free_port
from unit.core.pki.certificates import DAY

ACCOUNT = "anna"
AWAKE = {"observedGeneration": 1, "readyReplicas": 1}
ASLEEP = {"observedGeneration": 1, "readyReplicas": 0}
BY_SERVICE = ("connect", "ci", "--via=service")


@dataclass(frozen=True)
class User:
    """Somebody with a kubeconfig and a home of their own."""

    home: Path
    path: str

    @property
    def files(self) -> Path:
        """Where connections are kept."""
        return self.home / "config" / "buildpool"

    def run(self, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
        """Runs our program; the exit code is the caller's to judge."""
        return subprocess.run(
            [sys.executable, "-m", "buildpool.cli", *arguments],
            env={
                "PATH": path or self.path,
                "PYTHONPATH": str(PROJECT / "operator"),
                "HOME": str(self.home),
                "XDG_CONFIG_HOME": str(self.home / "config"),
                "BUILDX_CONFIG": str(self.home / "buildx"),
                "KUBECONFIG": str(self.home / "kubeconfig"),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def must(self, *arguments: str) -> str:
        """Runs it, which has to succeed; what it printed."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def fails(self, *arguments: str, path: str = "") -> str:
        """Runs it, which has to fail with one line; that line."""
        done = self.run(*arguments, path=path)
        assert (done.returncode, done.stdout) == (1, ""), done
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


def a_user(api: Api, namespace: str, home: Path, *rights: str) -> User:
    """A ServiceAccount with roles of its own in one namespace, or a ClusterRole there."""
    api.must("create", "serviceaccount", ACCOUNT, "-n", namespace)
    for number, right in enumerate(rights):
        name = f"{ACCOUNT}-{number}"
        kind, _, role = right.partition("clusterrole/")
        if not role:
            verbs, resources = kind.split()
            given = (f"--verb={verbs}", f"--resource={resources}")
            api.must("create", "role", name, "-n", namespace, *given)
        of = f"--clusterrole={role}" if role else f"--role={name}"
        holder = (of, f"--serviceaccount={namespace}:{ACCOUNT}")
        api.must("create", "rolebinding", name, "-n", namespace, *holder)
    raw = yaml.safe_load(api.must("config", "view", "--raw", "--minify", "--flatten"))
    token = api.must("create", "token", ACCOUNT, "-n", namespace)
    raw["users"] = [{"name": ACCOUNT, "user": {"token": token.strip()}}]
    raw["contexts"][0]["context"] |= {"user": ACCOUNT, "namespace": namespace}
    path = home / "kubeconfig"
    path.write_text(yaml.safe_dump(raw))
    path.chmod(0o600)
    return User(home, os.environ["PATH"])


@pytest.fixture
def user(installed: Api, namespace: str, tmp_path: Path) -> User:
    """A user who may do what docs/how-to/connect.md says is needed, and no more."""
    rights = ("get buildkitpools.buildpool.dev", "get secrets", "get services")
    return a_user(installed, namespace, tmp_path, *rights)


def deploy(api: Api, namespace: str, status: dict[str, Any], **spec: Any) -> None:
    """A pool with the status that an operator would give it."""
    api.apply(a_pool("ci", namespace, **spec))
    patch = ("bkp", "ci", "-n", namespace, "--subresource=status", "--type=merge", "-p")
    api.must("patch", *patch, json.dumps({"status": status}))


def give_certificate(api: Api, namespace: str, **instead: str) -> None:
    """The client's Secret, as the operator writes it."""
    now = datetime.now(UTC)  # OpenSSL verifies against the real clock
    authority = issue_authority("ci", now=now, lifetime=DAY)
    made = issue(authority, CertificateRequest(Use.CLIENT, "default", DAY), now=now)
    contents = {
        "ca.pem": made.trust,
        "cert.pem": made.pair.certificate,
        "key.pem": made.pair.key,
    }
    data = {key: base64.b64encode(value).decode() for key, value in contents.items()}
    metadata = {"name": "ci-client-default", "namespace": namespace}
    api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data | instead})


def a_path_with(folder: Path, *programs: str) -> str:
    """A PATH on which only these programs are found."""
    folder.mkdir()
    for program in programs:
        found = shutil.which(program)
        assert found, program
        (folder / program).symlink_to(found)
    return str(folder)


def test_a_pool_that_sleeps_is_connected_and_not_woken(
    installed: Api, namespace: str, user: User
) -> None:
    deploy(installed, namespace, ASLEEP, routing="Gateway", scaling={"min": 0})
    give_certificate(installed, namespace)
    said = user.must(*BY_SERVICE, "--name=mine", "--use").splitlines()
    assert said == [
        f"pool {namespace}/ci: asleep, the first build wakes it, at tcp://ci.{namespace}.svc:1234",
        "Build: buildx build --builder mine .",
    ]
    folder = user.files / "mine"
    secret = installed.get("secret", "ci-client-default", namespace)
    assert secret is not None
    for name in ("ca.pem", "cert.pem", "key.pem"):
        path = folder / f"{namespace}.ci.default" / name
        assert path.read_bytes() == base64.b64decode(secret["data"][name])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    # A renewed certificate is fetched by the same command, and so is a builder that was removed.
    give_certificate(installed, namespace)
    shutil.rmtree(user.home / "buildx")
    user.must(*BY_SERVICE, "--name=mine")
    renewed = installed.get("secret", "ci-client-default", namespace)
    assert renewed is not None
    cert = (folder / f"{namespace}.ci.default" / "cert.pem").read_bytes()
    assert cert == base64.b64decode(renewed["data"]["cert.pem"])
    assert renewed["data"] != secret["data"]

    assert user.must("disconnect") == "builder mine and its files are removed\n"
    assert not folder.exists()
    assert "there is none" in user.fails("disconnect")


def test_what_the_cluster_has_not_is_said_with_its_remedy(
    installed: Api, namespace: str, user: User
) -> None:
    assert f"namespace {namespace} has no BuildKitPool ci" in user.fails("connect", "ci")
    assert "you may not read BuildKitPool ci" in user.fails("connect", "ci", "-n", "default")
    deploy(installed, namespace, AWAKE)
    missing = user.fails(*BY_SERVICE)
    assert f"Secret {namespace}/ci-client-default is not there yet" in missing
    assert "--for=condition=CertificatesReady" in missing
    give_certificate(installed, namespace, **{"cert.pem": "AAAA"})
    assert "the certificate cannot be read" in user.fails(*BY_SERVICE)
    assert "has no client bert; it has default" in user.fails(*BY_SERVICE, "--client=bert")
    deploy(installed, namespace, ASLEEP)
    assert "no builder that a port-forward could lead to" in user.fails("connect", "ci")
    assert not [path for path in user.files.rglob("*") if not path.name.endswith(".lock")]


def test_what_this_machine_has_not_is_said_with_its_remedy(
    installed: Api, namespace: str, user: User, tmp_path: Path
) -> None:
    deploy(installed, namespace, AWAKE)
    give_certificate(installed, namespace)
    nothing = a_path_with(tmp_path / "nothing")
    assert "kubectl is not on the PATH; install it" in user.fails("status", path=nothing)
    kubectl = a_path_with(tmp_path / "kubectl", "kubectl")
    assert "neither docker buildx nor buildx" in user.fails(*BY_SERVICE, path=kubectl)
    printed = user.run(*BY_SERVICE, "--print=buildctl", path=kubectl)
    assert printed.stdout.startswith(f"buildctl --addr tcp://ci.{namespace}.svc:1234 ")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} of this machine is taken" in user.fails(
            "connect", "ci", f"--port={port}"
        )


def test_a_pool_that_does_not_answer_is_an_error_that_says_why(
    installed: Api, namespace: str, user: User
) -> None:
    # A name that needs no DNS.
    deploy(installed, namespace, AWAKE, routing="Gateway", gateway={"hostnames": ["127.0.0.1"]})
    give_certificate(installed, namespace)
    port = free_port()
    said = user.fails("connect", "ci", "--via=hostname", f"--port={port}")
    assert f"pool {namespace}/ci does not answer at tcp://127.0.0.1:{port} (" in said
    assert "Connection refused" in said
    assert said.endswith(f"kubectl buildpool explain ci -n {namespace}")


@pytest.mark.parametrize("flags", [(), ("--detach",)])
def test_what_cannot_be_forwarded_is_one_line(
    installed: Api, namespace: str, user: User, flags: tuple[str, ...]
) -> None:
    deploy(installed, namespace, AWAKE, routing="Gateway")
    give_certificate(installed, namespace)
    said = user.fails("connect", "ci", f"--gateway={namespace}/nope", *flags)
    assert 'services "nope" not found' in said
    assert user.fails("connect", "ci").startswith("the gateway's Service cannot be found")


def test_a_connection_of_another_cluster_is_not_replaced(
    installed: Api, namespace: str, user: User
) -> None:
    deploy(installed, namespace, ASLEEP, routing="Gateway", scaling={"min": 0})
    give_certificate(installed, namespace)
    user.must(*BY_SERVICE)
    file = user.home / "kubeconfig"
    raw = yaml.safe_load(file.read_text())
    raw["current-context"] = raw["contexts"][0]["name"] = "another"
    file.write_text(yaml.safe_dump(raw))
    assert "give this one another --name" in user.fails(*BY_SERVICE)
    user.must(*BY_SERVICE, "--name=another")
    assert "there are another, ci; name one" in user.fails("disconnect")


def test_somebody_who_may_view_sees_all_pools_what_is_wrong_first(
    installed: Api, namespace: str, tmp_path: Path
) -> None:
    viewer = a_user(installed, namespace, tmp_path, "clusterrole/view")
    assert viewer.must("status") == f"There is no BuildKitPool in namespace {namespace}.\n"
    deploy(installed, namespace, AWAKE)
    installed.apply(a_pool("new", namespace))
    lines = viewer.must("status").splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "new", "No", "ci"]
    assert viewer.must("status", "-o", "name").split() == [
        "buildkitpool.buildpool.dev/new",
        "buildkitpool.buildpool.dev/ci",
    ]
    assert len(json.loads(viewer.must("status", "-o", "json"))["items"]) == 2
    assert "you may not read all BuildKitPools" in viewer.fails("status", "-A")
    assert "you may not change BuildKitPool ci" in viewer.fails("rotate", "ci")


def test_somebody_who_may_edit_has_certificates_replaced(
    installed: Api, namespace: str, tmp_path: Path
) -> None:
    editor = a_user(installed, namespace, tmp_path, "clusterrole/edit")
    installed.apply(a_pool("ci", namespace))
    editor.must("rotate", "ci")
    pool = installed.get("bkp", "ci", namespace) or {}
    assert pool["metadata"]["annotations"]["buildpool.dev/rotate"] == "certificates"
    editor.must("rotate", "ci", "--authority")
    pool = installed.get("bkp", "ci", namespace) or {}
    assert pool["metadata"]["annotations"]["buildpool.dev/rotate"] == "authority"
