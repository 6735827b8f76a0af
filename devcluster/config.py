"""Renders every configuration file of the cluster.

Pure: from layout and names to text. The components' command lines are in ``components``.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli_w

from devcluster.addresses import ADDRESSES, Family
from devcluster.layout import (
    CONTAINERD_SOCKET,
    NODE_ADDRESS,
    POD_NETWORK,
    RUN,
    Layout,
)

PAUSE_IMAGE: Final = "localhost/devcluster/pause:1"
STORAGE_CLASS: Final = "standard"
PROVISIONER: Final = "devcluster.buildpool.dev/folder"
USERS: Final = ("kubelet", "controller-manager", "scheduler", "proxy", "coredns", "provisioner")
"""Identities of the PKI that get a kubeconfig of their own."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the compiled programs are."""

    kubernetes: Path
    control_plane: Path
    """API server, controllers and scheduler; ``kubernetes`` again, or an older version."""
    tools: Path
    coredns: Path
    runc: Path
    pause: Path
    cgroupless_runc: Path
    envoy: Path

    @property
    def container_runtime(self) -> str:
        """The runc that containers of the box are run with."""
        return f"{self.cgroupless_runc}/cgroupless-runc"

    @property
    def path(self) -> str:
        """The folders as a PATH prefix."""
        folders = (self.kubernetes, self.tools, self.coredns, self.runc, self.envoy)
        return ":".join(map(str, folders))


def kubeconfig(user: str, authority: bytes, certificate: bytes, key: bytes, *, server: str) -> str:
    """A kubeconfig with everything in it."""

    def encoded(raw: bytes) -> str:
        return base64.b64encode(raw).decode()

    cluster = {"server": server, "certificate-authority-data": encoded(authority)}
    credentials = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "devcluster", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [
                {"name": "devcluster", "context": {"cluster": "devcluster", "user": user}}
            ],
            "current-context": "devcluster",
        }
    )


def containerd(layout: Layout, programs: Programs) -> str:
    """Containers stay out of cgroups and AppArmor: neither belongs to the box."""
    runtime = {
        "runtime_type": "io.containerd.runc.v2",
        "options": {"BinaryName": programs.container_runtime},
    }
    return tomli_w.dumps(
        {
            "version": 3,
            "root": str(layout.data / "containerd"),
            "state": str(RUN / "containerd"),
            "disabled_plugins": ["io.containerd.nri.v1.nri"],
            "grpc": {"address": str(CONTAINERD_SOCKET)},
            "ttrpc": {"address": f"{CONTAINERD_SOCKET}.ttrpc"},
            "plugins": {
                "io.containerd.cri.v1.runtime": {
                    "disable_cgroup": True,
                    "disable_apparmor": True,
                    "restrict_oom_score_adj": True,
                    "cni": {
                        "bin_dirs": [str(programs.tools)],
                        "conf_dir": str(layout.config / "cni"),
                    },
                    "containerd": {"runtimes": {"runc": runtime}},
                },
                "io.containerd.cri.v1.images": {"pinned_images": {"sandbox": PAUSE_IMAGE}},
                "io.containerd.internal.v1.opt": {"path": str(layout.data / "containerd-opt")},
            },
        }
    )


def cni() -> str:
    """A bridge with addresses from one range; pods are reached without translation."""
    ranges = [[{"subnet": POD_NETWORK, "gateway": NODE_ADDRESS}]]
    ipam = {
        "type": "host-local",
        "dataDir": str(RUN / "cni"),
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": ipam,
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return _json({"cniVersion": "1.0.0", "name": "devcluster", "plugins": [bridge, portmap]})


def kubelet(layout: Layout) -> str:
    """A kubelet without cgroup management."""
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": str(layout.pki / "kubelet.crt"),
            "tlsPrivateKeyFile": str(layout.pki / "kubelet.key"),
            "clusterDNS": [NODE_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(layout.config / "resolv-node.conf"),
            "evictionHard": {
                "nodefs.available": "1%",
                "imagefs.available": "1%",
                "memory.available": "100Mi",
            },
            "maxPods": 200,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
            "imageGCHighThresholdPercent": 100,
        }
    )


def kube_proxy(layout: Layout) -> str:
    """Services by nftables; leaves the machine-wide size of the connection table alone."""
    return _json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": POD_NETWORK,
            "hostnameOverride": layout.name,
            "clientConnection": {"kubeconfig": str(layout.config / "proxy.kubeconfig")},
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
    )


def corefile(layout: Layout) -> str:
    """DNS for Services and pods; nothing else can be resolved in the box."""
    return f"""\
. {{
    bind {NODE_ADDRESS}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {layout.config}/coredns.kubeconfig
        pods insecure
    }}
}}
"""


def resolv_conf(namespace: str = "default") -> str:
    """What ``devcluster exec`` sees as /etc/resolv.conf: names resolve as in a pod."""
    domains = " ".join(f"{prefix}cluster.local" for prefix in (f"{namespace}.svc.", "svc.", ""))
    return f"nameserver {NODE_ADDRESS}\nsearch {domains}\noptions ndots:5\n"


def buildkitd() -> str:
    """The daemon behind ``devcluster build``: no cgroups, the box's network."""
    return tomli_w.dumps(
        {
            "worker": {
                "oci": {"enabled": True, "rootless": True, "gc": False, "snapshotter": "overlayfs"},
                "containerd": {"enabled": False},
            },
        }
    )


def audit_policy() -> str:
    """Every request once, without its body."""
    return _json(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata"}],
        }
    )


def objects() -> str:
    """What a cluster is expected to have from the start: a default storage class, some roles."""
    read_services = [
        {
            "apiGroups": [""],
            "resources": ["services", "pods", "namespaces"],
            "verbs": ["list", "watch", "get"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
    ]
    items: list[dict[str, Any]] = [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "devcluster:coredns"},
            "rules": read_services,
        },
        _cluster_role_binding("coredns", "devcluster:coredns"),
        _cluster_role_binding("provisioner", "system:persistent-volume-provisioner"),
    ]
    return _json({"apiVersion": "v1", "kind": "List", "items": items})


def _cluster_role_binding(identity: str, role: str) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"devcluster:{identity}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": f"devcluster:{identity}"}],
    }


def _json(value: dict[str, Any]) -> str:
    """JSON, which every reader of YAML reads too."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def render(layout: Layout, programs: Programs, family: Family) -> dict[str, str]:
    """All files of the config folder, by name; needs the PKI to be there."""

    def user(identity: str) -> str:
        files = (
            layout.pki / f"{name}" for name in ("ca.crt", f"{identity}.crt", f"{identity}.key")
        )
        found = (file.read_bytes() for file in files)
        return kubeconfig(identity, *found, server=ADDRESSES[family].api_server)

    return {
        "audit-policy.json": audit_policy(),
        "buildkitd.toml": buildkitd(),
        "cni/10-devcluster.conflist": cni(),
        "containerd.toml": containerd(layout, programs),
        "Corefile": corefile(layout),
        "kube-proxy.json": kube_proxy(layout),
        "kubelet.json": kubelet(layout),
        "objects.json": objects(),
        "resolv-node.conf": "",
        "resolv.conf": resolv_conf(),
        **{f"{identity}.kubeconfig": user(identity) for identity in USERS},
        "admin.kubeconfig": user("admin"),
    }
