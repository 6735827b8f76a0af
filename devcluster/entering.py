"""Commands that run in the network of a cluster, as if on its node, with the caller's own files."""

from __future__ import annotations

import os
from collections.abc import Mapping

from devcluster.identity import Identity
from devcluster.layout import Layout
from devcluster.plan import Plan

_ELSEWHERE = ("HELM_KUBE", "HELM_NAMESPACE", "KUBERNETES_")
"""How names of variables begin that say to kubectl, helm or clients where a cluster is."""
_WITH_NAMES = """\
if [ -e /etc/resolv.conf ]; then mount --bind "$1" /etc/resolv.conf; fi
shift
exec "$@"
"""


def enter(box: Identity, layout: Layout, plan: Plan, command: tuple[str, ...]) -> tuple[str, ...]:
    """The command line that runs a command there.

    Names of Services resolve too when the cluster has DNS: in mounts of the command's own, only
    /etc/resolv.conf differs; what the machine mounts later still appears.
    """
    network = ("nsenter", f"--net=/proc/{box.pid}/ns/net", "--")
    if not plan.has_node:
        return (*network, *command)
    mounts = ("unshare", "--mount", "--propagation=slave", "--")
    names = ("sh", "-ec", _WITH_NAMES, "sh", str(layout.config / "resolv.conf"))
    return (*network, *mounts, *names, *command)


def environment(layout: Layout, plan: Plan, environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment, with the cluster's programs first and its kubeconfig.

    Of what would lead a program to another cluster, nothing is left.
    """
    return {
        **{name: value for name, value in environ.items() if not name.startswith(_ELSEWHERE)},
        "DEVCLUSTER_NAME": layout.name,
        "PATH": f"{plan.programs.path}:{environ.get('PATH', os.defpath)}",
        "KUBECONFIG": str(layout.kubeconfig),
    }


def become(box: Identity, layout: Layout, plan: Plan, command: tuple[str, ...]) -> None:
    """Replace this process by the command, so that signals, terminal and exit code are its own."""
    argv = enter(box, layout, plan, command)
    os.execvpe(argv[0], argv, environment(layout, plan, os.environ))  # noqa: S606
