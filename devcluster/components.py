"""What runs inside the box, in which order, and how to tell that it is ready.

Pure: a list of values. ``supervisor`` carries it out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from devcluster.addresses import ADDRESSES, Family
from devcluster.config import Programs
from devcluster.layout import (
    BUILDKIT_SOCKET,
    CONTAINERD_SOCKET,
    NODE_ADDRESS,
    Layout,
)


class Kind(StrEnum):
    """What is expected of a component."""

    DAEMON = "daemon"
    """Runs for ever; started again when it ends."""
    TASK = "task"
    """Runs once; started again until it succeeds."""
    ON_DEMAND = "on demand"
    """A daemon that rests until it is asked for."""


@dataclass(frozen=True, slots=True)
class Gate:
    """When a daemon counts as ready: its socket accepts, or its URL answers 200."""

    address: str
    """``unix:///path``, ``http://…`` or ``https://…``."""
    identity: str = ""
    """Which client certificate to show."""


@dataclass(frozen=True, slots=True)
class Component:
    """One process of the box."""

    name: str
    argv: tuple[str, ...]
    after: tuple[str, ...] = ()
    """Started when all of these are ready."""
    gate: Gate | None = None
    kind: Kind = Kind.DAEMON
    patience: timedelta = timedelta(seconds=60)
    """How long `up` waits for it once it has been started."""


def control_plane(layout: Layout, programs: Programs, family: Family) -> tuple[Component, ...]:
    """An API with a scheduler and controllers, and nothing that runs a pod."""
    addresses = ADDRESSES[family]
    etcd = addresses.url(2379, scheme="http")
    pki, config = layout.pki, layout.config
    kubectl = (f"{programs.kubernetes}/kubectl", f"--kubeconfig={config}/admin.kubeconfig")
    authentication = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"

    def credentials(identity: str) -> tuple[str, ...]:
        options = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        return tuple(f"--{option}={config}/{identity}.kubeconfig" for option in options)

    return (
        Component(
            "etcd",
            (
                f"{programs.kubernetes}/etcd",
                f"--data-dir={layout.data}/etcd",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={addresses.url(2380, scheme='http')}",
                "--unsafe-no-fsync",
                "--auto-compaction-retention=5m",
                "--log-level=warn",
            ),
            gate=Gate(f"{etcd}/health"),
        ),
        Component(
            "kube-apiserver",
            (
                f"{programs.control_plane}/kube-apiserver",
                f"--etcd-servers={etcd}",
                f"--bind-address={addresses.bound}",
                f"--advertise-address={addresses.node}",
                "--secure-port=6443",
                f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key",
                f"--client-ca-file={pki}/ca.crt",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={pki}/tokens.pub",
                f"--service-account-signing-key-file={pki}/tokens.key",
                f"--service-cluster-ip-range={addresses.services}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
                f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
                f"--kubelet-certificate-authority={pki}/ca.crt",
                "--kubelet-preferred-address-types=InternalIP",
                "--allow-privileged=true",
                f"--audit-policy-file={config}/audit-policy.json",
                f"--audit-log-path={layout.audit_log}",
                "--audit-log-maxsize=50",
                "--audit-log-maxbackup=2",
            ),
            after=("etcd",),
            # /readyz is too early: the roles the controllers start with are read a moment later.
            gate=Gate(f"{addresses.api_server}{authentication}", "controller-manager"),
        ),
        Component(
            "kube-controller-manager",
            (
                f"{programs.control_plane}/kube-controller-manager",
                *credentials("controller-manager"),
                f"--bind-address={addresses.bound}",
                f"--service-account-private-key-file={pki}/tokens.key",
                f"--root-ca-file={pki}/ca.crt",
                f"--cluster-signing-cert-file={pki}/ca.crt",
                f"--cluster-signing-key-file={pki}/ca.key",
                "--use-service-account-credentials",
                "--allocate-node-cidrs=true",
                f"--cluster-cidr={addresses.pods}",
                "--kube-api-qps=200",  # the default makes it start slowly
                "--kube-api-burst=400",
                "--leader-elect=false",
            ),
            after=("kube-apiserver",),
            gate=Gate(f"{addresses.url(10257)}/healthz"),
        ),
        Component(
            "kube-scheduler",
            (
                f"{programs.control_plane}/kube-scheduler",
                *credentials("scheduler"),
                f"--bind-address={addresses.bound}",
                "--leader-elect=false",
            ),
            after=("kube-apiserver",),
            gate=Gate(f"{addresses.url(10259)}/healthz"),
        ),
        Component(
            "objects",
            (*kubectl, "apply", "--server-side", f"--filename={config}/objects.json"),
            after=("kube-apiserver",),
            kind=Kind.TASK,
        ),
        Component(
            "default-account",
            (*kubectl, "wait", "--for=create", "--timeout=10s", "serviceaccount/default"),
            after=("kube-controller-manager",),
            kind=Kind.TASK,
        ),
    )


def node(layout: Layout, programs: Programs, images: tuple[Path, ...]) -> tuple[Component, ...]:
    """What makes it a node: containers, network, names, volumes, images."""
    config = layout.config
    python = (sys.executable, "-m")
    kubectl = (f"{programs.kubernetes}/kubectl", f"--kubeconfig={config}/admin.kubeconfig")
    return (
        Component(
            "containerd",
            (f"{programs.tools}/containerd", f"--config={config}/containerd.toml"),
            gate=Gate(f"unix://{CONTAINERD_SOCKET}"),
        ),
        Component(
            "images",
            (*python, "devcluster.importing", str(programs.tools / "ctr"), *map(str, images)),
            after=("containerd",),
            kind=Kind.TASK,
        ),
        Component(
            "kubelet",
            (
                f"{programs.kubernetes}/kubelet",
                f"--config={config}/kubelet.json",
                f"--kubeconfig={config}/kubelet.kubeconfig",
                f"--hostname-override={layout.name}",
                f"--node-ip={NODE_ADDRESS}",
            ),
            after=("containerd", "kube-apiserver"),
            gate=Gate("http://127.0.0.1:10248/healthz"),
        ),
        Component(
            "kube-proxy",
            (f"{programs.kubernetes}/kube-proxy", f"--config={config}/kube-proxy.json"),
            after=("kube-apiserver",),
            gate=Gate("http://127.0.0.1:10256/livez"),
        ),
        Component(
            "coredns",
            (f"{programs.coredns}/coredns", f"-conf={config}/Corefile"),
            after=("objects",),
            gate=Gate("http://127.0.0.1:8181/ready"),
        ),
        Component(
            "provisioner",
            (
                *python,
                "devcluster.provisioner",
                str(layout.volumes),
                str(layout.pki),
            ),
            after=("objects",),
        ),
        Component(
            "node-ready",
            (*kubectl, "wait", "--for=condition=Ready", "--timeout=30s", f"node/{layout.name}"),
            after=("kubelet",),
            kind=Kind.TASK,
        ),
        Component(
            "buildkitd",
            (
                f"{programs.tools}/buildkitd",
                f"--config={config}/buildkitd.toml",
                f"--root={layout.data}/buildkit",
                f"--addr=unix://{BUILDKIT_SOCKET}",
                f"--oci-worker-binary={programs.container_runtime}",
            ),
            gate=Gate(f"unix://{BUILDKIT_SOCKET}"),
            kind=Kind.ON_DEMAND,
        ),
    )
