"""`buildpool explain` as its users run it: with a kubeconfig and the right to get pools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster import PROJECT, Api, a_pool

ACCOUNT = "reader"
STATUS = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Ready",
            "message": "All 2 builders take builds.",
            "lastTransitionTime": "2026-01-01T12:00:00Z",
        }
    ],
    "replicas": 2,
    "readyReplicas": 2,
    "busySlots": 1,
    "slots": 4,
    "scaling": {
        "size": 2,
        "reason": "CoolingDown",
        "message": "1 build runs; 1 builder would do, but the pool keeps 2 for a while.",
        "since": "2026-01-01T12:00:00Z",
        "calmSince": "2126-01-01T12:00:00Z",
        "peak": 1,
    },
    "builders": [
        {
            "name": f"ci-builder-{number}",
            "state": "Serving",
            "ready": True,
            "revision": "3f2a5b6c7d8e9f01",
            "builds": number,
            "served": 40 + number,
        }
        for number in (0, 1)
    ],
}


def explained(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, run anywhere with this kubeconfig."""
    return subprocess.run(
        [sys.executable, "-m", "buildpool.cli", "explain", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT / "operator"),
            "HOME": str(kubeconfig.parent),
            "KUBECONFIG": str(kubeconfig),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def reader(installed: Api, namespace: str, tmp_path: Path) -> Path:
    """The kubeconfig of somebody who may get pools of one namespace, which its context names."""
    installed.must("create", "serviceaccount", ACCOUNT, "-n", namespace)
    rights = ("--verb=get", "--resource=buildkitpools.buildpool.dev")
    installed.must("create", "role", ACCOUNT, *rights, "-n", namespace)
    holder = (f"--role={ACCOUNT}", f"--serviceaccount={namespace}:{ACCOUNT}")
    installed.must("create", "rolebinding", ACCOUNT, *holder, "-n", namespace)
    raw = yaml.safe_load(installed.must("config", "view", "--raw", "--minify", "--flatten"))
    token = installed.must("create", "token", ACCOUNT, "-n", namespace)
    raw["users"] = [{"name": ACCOUNT, "user": {"token": token.strip()}}]
    raw["contexts"][0]["context"] |= {"user": ACCOUNT, "namespace": namespace}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(raw))
    path.chmod(0o600)
    return path


def with_status(api: Api, namespace: str) -> None:
    """Writes a status as an operator does: none runs here."""
    patch = json.dumps({"status": STATUS})
    to = ("bkp", "ci", "-n", namespace, "--subresource=status")
    api.must("patch", *to, "--type=merge", "-p", patch)


def test_a_pool_is_explained_to_somebody_who_may_only_get_it(
    installed: Api, namespace: str, reader: Path
) -> None:
    installed.apply(a_pool("ci", namespace, scaling={"max": 3}))
    fresh = explained(reader, "ci")
    assert (fresh.returncode, fresh.stderr) == (0, "")
    assert fresh.stdout.startswith(f"{namespace}/ci: no builders yet\noperator      It has not")
    with_status(installed, namespace)
    done = explained(reader, "ci", "--namespace", namespace)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{namespace}/ci: 2 builders (of 1 to 3), 1 build on 4 slots, Ready"
    assert "why 2         CoolingDown: 1 build runs; 1 builder would do" in done.stdout
    assert "At 2126-01-01 12:10:00 UTC (in " in done.stdout
    assert "    ci-builder-1  Serving  1/2     41      3f2a5b6c" in lines


def test_a_spec_that_is_wrong_is_explained_too(
    installed: Api, namespace: str, reader: Path
) -> None:
    installed.apply(a_pool("ci", namespace))
    with_status(installed, namespace)
    installed.apply(a_pool("ci", namespace, builders={"config": "no toml"}))
    done = explained(reader, "ci")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("invalid spec  spec.builders.config: not valid")
    assert "What was valid before keeps serving." in done.stdout
    assert "It has not looked at generation 2 of it yet, only at 1." in done.stdout


def test_a_mistake_is_one_line_that_says_what_to_do(
    installed: Api, namespace: str, reader: Path, tmp_path: Path
) -> None:
    absent = (
        f"namespace {namespace} has no BuildKitPool nope; "
        "kubectl get bkp -A lists all there are; -n names another namespace"
    )
    nowhere = tmp_path / "no-kubeconfig"
    cases = {
        (reader, "nope"): absent,
        (reader, "ci", "-n", "default"): 'cannot get resource "buildkitpools"',
        (reader, "two/names"): "'two/names' is no name of a pool: use at most 40 characters",
        (nowhere, "ci"): "set KUBECONFIG to a kubeconfig with a current context",
    }
    for (kubeconfig, *arguments), said in cases.items():
        done = explained(kubeconfig, *arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("error: ")
        assert said in done.stderr


UNKNOWN = "set KUBECONFIG to a kubeconfig with a current context, or name one by --context"
KUBECONFIGS = {
    "a mistake of syntax": (b"a: [1,\nb: 2", UNKNOWN),
    "a list": (b"- 1", UNKNOWN),
    "a word": (b"word", UNKNOWN),
    "nothing": (b"", UNKNOWN),
    "no text": (b"\xff\xfe\x00", UNKNOWN),
    "contexts that are none": (
        b"current-context: a\ncontexts: 1\nclusters: []\nusers: []\n",
        UNKNOWN,
    ),
    "no context": (
        b"apiVersion: v1\nkind: Config\ncontexts: []\nclusters: []\nusers: []\n",
        UNKNOWN,
    ),
    "a certificate that is none": (
        yaml.safe_dump(
            {
                "current-context": "a",
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                "clusters": [
                    {
                        "name": "a",
                        "cluster": {
                            "server": "https://127.0.0.1:1",
                            "certificate-authority-data": "a",
                        },
                    }
                ],
                "users": [{"name": "a", "user": {}}],
            }
        ).encode(),
        UNKNOWN,
    ),
}
"""Without a current context, or none that can be used; and the remedy."""


@pytest.mark.parametrize(("content", "remedy"), KUBECONFIGS.values(), ids=KUBECONFIGS)
@pytest.mark.parametrize("flags", [(), ("-n", "builds")])
def test_a_kubeconfig_that_is_wrong_is_one_line(
    content: bytes, remedy: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_bytes(content)
    done = explained(file, "ci", *flags)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(remedy)


def test_a_folder_is_no_kubeconfig(tmp_path: Path) -> None:
    done = explained(tmp_path, "ci")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith(UNKNOWN)
