"""Makes the box: private namespaces for mounts, network, processes, host name and IPC.

Everything the cluster runs is a descendant of the box's first process, so the kernel ends it all,
and drops all mounts, bridges and namespaces, when that process ends. Inside, nothing may reach the
machine's own cgroups, settings or state folders.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Final

from devcluster.addresses import ADDRESSES, Family
from devcluster.layout import RUN, Layout

_NEW_NAMESPACES: Final = (
    0x00020000  # CLONE_NEWNS
    | 0x04000000  # CLONE_NEWUTS
    | 0x08000000  # CLONE_NEWIPC
    | 0x20000000  # CLONE_NEWPID
    | 0x40000000  # CLONE_NEWNET
)

KUBELET_SETTINGS: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""Machine-wide settings that a kubelet sets unless it finds them so. It finds them so."""


def unshare() -> None:
    """Leave the machine's namespaces. The next child is the first process of the box."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NAMESPACES):
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}")


def set_up(layout: Layout, family: Family) -> None:
    """Called by the first process of the box, before anything else."""
    _set_up_mounts(layout)
    if family is Family.IPV6:
        _set_up_network_of_version_6()
    else:
        _set_up_network()
    _run("hostname", layout.name)


def _set_up_mounts(layout: Layout) -> None:
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "proc", "proc", "/proc")
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    RUN.mkdir()
    for folder in ("lib", "log"):
        (layout.var / folder).mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(layout.var / folder), f"/var/{folder}")
    _cover_settings()
    for mount in cgroup_mounts(Path("/proc/self/mountinfo").read_text()):
        _run("mount", "-o", "remount,bind,ro", mount)
    # A node's mounts are shared: volumes with mount propagation need it.
    _run("mount", "--make-rshared", "/")


def _cover_settings() -> None:
    """Let the kubelet read the settings it wants instead of writing them.

    A pod in a user namespace may mount /proc only if the box has one with nothing mounted over
    parts of it: so there is a second one.
    """
    intact = RUN / "proc"
    intact.mkdir()
    _run("mount", "-t", "proc", "proc", str(intact))
    covers = RUN / "settings"
    covers.mkdir()
    for setting, value in KUBELET_SETTINGS.items():
        cover = covers / setting.replace("/", ".")
        cover.write_text(f"{value}\n")
        _run("mount", "--bind", str(cover), f"/proc/sys/{setting}")


def cgroup_mounts(mountinfo: str) -> tuple[str, ...]:
    """Mount points of all cgroup file systems."""
    mounts = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] in ("cgroup", "cgroup2"):
            mounts.append(before.split()[4])
    return tuple(mounts)


def _set_up_network() -> None:
    """A bridge that is the node's address, and no way out."""
    addresses = ADDRESSES[Family.IPV4]
    for command in (
        "link set lo up",
        "link add cni0 type bridge",
        f"address add {addresses.node}/24 dev cni0",
        "link set cni0 up",
        f"route add {addresses.services} dev cni0",
    ):
        _run("ip", *command.split())
    for setting in ("ip_forward", "conf/all/route_localnet"):
        Path(f"/proc/sys/net/ipv4/{setting}").write_text("1")


def _set_up_network_of_version_6() -> None:
    """Its own address, and none of version 4 but loopback."""
    Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("0")
    for command in (
        "link set lo up",
        f"address add {ADDRESSES[Family.IPV6].node}/128 dev lo nodad",
    ):
        _run("ip", *command.split())


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
