"""What steps leave behind in a rootless builder, by real processes in namespaces like a pod's.

A step is what BuildKit and its runtime make of it, as far as it matters here: a process in an IPC
namespace of its own, whose parent, the runtime, is outside. This runtime is no subreaper, as it is
in ``runc exec``: what a step puts into the background goes to process 1 while the step still runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from buildpool.core.resources.scripts import FORGET_SECONDS, PATIENCE, clean_up, drain
from cluster import eventually

READY = ["echo", "ready"]
PAUSE = "sleep 600 & echo up; wait"
"""Process 1 of the pod: waits, and reaps whatever becomes its child."""
STEP = "unshare --ipc -- sh -c '{}'; {}"
"""What a runtime does: runs a step, waits for its end, and then does something else."""


@dataclass(frozen=True)
class Pod:
    """The namespaces of a pod, with what runs in them."""

    first: int
    folder: Path
    ends: ExitStack

    def start(
        self, script: str, *args: str, err: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Runs a shell script in the pod, beside the test; process 1 is not its parent."""
        into = ["nsenter", "--target", str(self.first), "--user", "--preserve-credentials"]
        command = [*into, "--ipc", "--pid", "--mount", "--", "sh", "-c", script, *args]
        process = subprocess.Popen(
            command,
            env={**os.environ, "XDG_RUNTIME_DIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            cwd=self.folder,
        )
        self.ends.enter_context(process)
        self.ends.callback(process.kill)
        return process

    def probe(self, times: int = 1) -> None:
        """What the kubelet does."""
        for _ in range(times):
            out, _ = self.start(clean_up(READY)).communicate(timeout=20)
            assert out == "ready\n"

    def commands(self) -> dict[str, int]:
        """What runs in the pod, by command line: its number there. What is dead has no line."""
        script = "for p in [0-9]*; do echo $p $(tr '\\0' ' ' < $p/cmdline); done 2> /dev/null"
        out, _ = self.start(f"cd /proc; {script}").communicate(timeout=20)
        lines = (line.partition(" ") for line in out.splitlines())
        return {command: int(number) for number, _, command in lines}

    def runs(self, command: str) -> bool:
        """Whether a process of this command line is there."""
        return command in self.commands()

    def must_run(self, *commands: str) -> None:
        """Waits until these have begun."""
        for command in commands:
            eventually(lambda c=command: self.runs(c), within=20, what=f"{command} runs")

    def must_end(self, *commands: str) -> None:
        """Waits until these are gone; a process that was killed dies a moment later."""
        for command in commands:
            eventually(lambda c=command: not self.runs(c), within=20, what=f"{command} is gone")


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    namespaces = ["--user", "--map-root-user", "--ipc", "--pid", "--fork", "--mount-proc"]
    with ExitStack() as ends:
        outer = subprocess.Popen(
            ["unshare", *namespaces, "--kill-child", "--", "sh", "-c", PAUSE],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ends.enter_context(outer)
        ends.callback(outer.kill)
        assert outer.stdout is not None
        assert outer.stderr is not None
        if outer.stdout.readline() != "up\n":
            pytest.skip(f"no user namespaces here: {outer.stderr.read()}")
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
        yield Pod(int(children), tmp_path, ends)


def test_what_a_step_has_left_behind_is_ended_with_its_children(pod: Pod) -> None:
    left = '(setsid sh -c "sleep 1001 & sleep 1002" > /dev/null 2>&1 &)'
    pod.start(STEP.format(left, "true")).wait(timeout=20)
    pod.must_run("sleep 1001", "sleep 1002")
    pod.probe()
    pod.must_end("sleep 1001", "sleep 1002")


def test_a_step_that_runs_keeps_all_it_has_put_into_the_background(pod: Pod) -> None:
    ended = pod.start(STEP.format("(setsid sleep 1000 > /dev/null 2>&1 &)", "true"))
    ended.wait(timeout=20)
    background = "(setsid sleep 1001 > /dev/null 2>&1 &); sleep 1002 & sleep 1003"
    pod.start(STEP.format(background, "true"))
    commands = ("sleep 1001", "sleep 1002", "sleep 1003")
    pod.must_run("sleep 1000", *commands)
    pod.probe(times=PATIENCE + 5)
    assert not pod.runs("sleep 1000"), "of another step, which has ended"
    assert all(map(pod.runs, commands))


def test_no_step_is_harmed_however_many_begin_and_end_meanwhile(pod: Pod) -> None:
    """Each has a process in the background, and fails where that does not live to write."""
    step = '(setsid sh -c "sleep 0.2; echo alive" &) | grep -q alive'
    steps = f"for n in $(seq 20); do unshare --ipc -- sh -c '{step}' || exit 3; done; echo done"
    running = [pod.start(steps) for _ in range(3)]
    while any(process.poll() is None for process in running):
        pod.probe()
    assert [process.returncode for process in running] == [0, 0, 0]


def test_what_the_daemon_itself_has_in_the_background_stays(pod: Pod) -> None:
    """Such as the program of a file system, by which steps see their files."""
    pod.start("(setsid sleep 1001 > /dev/null 2>&1 &)").wait(timeout=20)
    pod.must_run("sleep 1001")
    pod.probe(times=3)
    assert pod.runs("sleep 1001")


def hanging(pod: Pod, main: str) -> subprocess.Popen[str]:
    """A runtime that goes on, for something still holds the output, beside what it has noted."""
    runtime = pod.start(STEP.format(main, "unshare --ipc -- sleep 1002"), "runc", "run", "step1")
    pod.must_run("sleep 1001")
    state = pod.folder / "runc" / "step1" / "state.json"
    state.parent.mkdir(parents=True)
    noted = {
        "id": "step1",
        "init_process_pid": pod.commands()["sleep 1001"],
        "init_process_start": 7,
    }
    state.write_text(json.dumps(noted, separators=(",", ":")))
    return runtime


def test_a_step_that_has_ended_and_hangs_fails_in_the_end_and_says_so(pod: Pod) -> None:
    (pod.folder / "buildkitd").symlink_to("/bin/sleep")
    log = pod.folder / "log"
    with log.open("w") as err:
        pod.start(f"exec {pod.folder}/buildkitd 1000", err=err.fileno())
    pod.must_run(f"{pod.folder}/buildkitd 1000")
    runtime = hanging(pod, "exec sleep 1001")
    pod.probe(times=PATIENCE)
    assert runtime.poll() is None, "its main process runs"
    assert log.read_text() == ""

    pod.start(f"kill {pod.commands()['sleep 1001']}").wait(timeout=20)
    pod.must_run("sleep 1002")
    pod.probe(times=PATIENCE - 1)
    assert runtime.poll() is None
    (told,) = log.read_text().splitlines()
    assert 'level=warning msg="buildpool: a step has ended and hangs' in told
    assert "held by sleep" in told

    pod.probe()
    assert runtime.wait(timeout=20) != 0
    pod.must_run("sleep 1002")
    pod.probe()
    pod.must_end("sleep 1002")
    _, failed, ended = log.read_text().splitlines()
    assert "failed a step that hung: its output was held by sleep" in failed
    assert "ended what a step had left behind: sleep" in ended


def test_a_step_that_hung_for_a_while_is_forgotten(pod: Pod) -> None:
    runtime = hanging(pod, "exec sleep 1001")
    pod.start(f"kill {pod.commands()['sleep 1001']}").wait(timeout=20)
    pod.must_run("sleep 1002")
    pod.probe(times=3)
    assert (pod.folder / "hanging" / "step1").exists()
    pod.start(f"kill {pod.commands()['sleep 1002']}").wait(timeout=20)
    runtime.wait(timeout=20)
    (pod.folder / "runc" / "step1" / "state.json").unlink()
    (pod.folder / "runc" / "step1").rmdir()
    pod.probe()
    assert not (pod.folder / "hanging" / "step1").exists()


def test_the_answer_is_that_of_the_daemon(pod: Pod) -> None:
    refused = pod.start(clean_up(["sh", "-c", "exit 7"]))
    assert refused.wait(timeout=20) == 7


@pytest.fixture
def draining(pod: Pod) -> subprocess.Popen[str]:
    """A pod that shall go, as soon as its daemon, which has a build, is idle."""
    (pod.folder / "buildkitd").symlink_to("/bin/sleep")
    pod.start(f"exec {pod.folder}/buildkitd 1000")
    pod.must_run(f"{pod.folder}/buildkitd 1000")
    (pod.folder / "buildctl").write_text("#!/bin/sh\necho >> asked\ncat histories\n")
    (pod.folder / "buildctl").chmod(0o755)
    (pod.folder / "histories").write_text("STARTED\n")
    script = drain("unix:///socket", 1234).replace(f"sleep {FORGET_SECONDS}", "sleep 0")
    return pod.start(f"cd {pod.folder}; PATH={pod.folder}:$PATH\n{script}")


def asked_twice(pod: Pod) -> None:
    """Waits until the script has asked the daemon, and asked again."""
    asked = pod.folder / "asked"
    deadline = time.monotonic() + 20
    while not asked.exists() or len(asked.read_text()) < 2:
        assert time.monotonic() < deadline, "it does not ask"
        time.sleep(0.05)


def test_a_pod_goes_once_its_daemon_is_idle(pod: Pod, draining: subprocess.Popen[str]) -> None:
    asked_twice(pod)
    assert draining.poll() is None
    (pod.folder / "histories").write_text("COMPLETE\n")
    assert draining.wait(timeout=20) == 0


def test_a_pod_goes_once_its_daemon_is_dead(pod: Pod, draining: subprocess.Popen[str]) -> None:
    """No build can be waited for then; where processes are shared, the kernel does not end this."""
    asked_twice(pod)
    assert draining.poll() is None
    pod.start(f"kill -9 {pod.commands()[f'{pod.folder}/buildkitd 1000']}").wait(timeout=20)
    assert draining.wait(timeout=20) == 0
