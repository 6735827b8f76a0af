"""What the same disruptions are to a plain Deployment, as it is written down everywhere.

Rootless ``buildkitd`` behind a Service, with certificates made by hand, the default grace period
and the default rolling update. Its owner does by hand what the operator does for a pool, in the
order that suggests itself: the new certificate into the Secrets, then a restart.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from buildpool.core.pki import CertificateRequest, KeyPair, Use, issue, issue_authority
from chaos.records import Result
from chaos.schedule import Kind, Step
from chaos.target import IMAGE, NAME, OWN_SIZE, Act, Answer, Common
from cluster import eventually

LABELS: Final = {"app": "buildkitd"}
SERVER_SECRET: Final = "buildkit-daemon-certs"
CLIENT_SECRET: Final = f"{NAME}-client-default"
CONFIG: Final = "buildkitd-config"
SOCKET: Final = "unix:///run/user/1000/buildkit/buildkitd.sock"
LIFETIME: Final = timedelta(days=30)


def _new_authority() -> KeyPair:
    return issue_authority("by hand", now=datetime.now(UTC), lifetime=LIFETIME)


@dataclass
class PlainDeployment(Common):
    """A Deployment of builders without an operator."""

    authority: KeyPair = field(default_factory=_new_authority, init=False)

    @property
    def title(self) -> str:
        """For the report."""
        return "plain Deployment"

    @property
    def selector(self) -> str:
        """Labels of the builders' pods."""
        return ",".join(f"{key}={value}" for key, value in LABELS.items())

    def deploy(self) -> None:
        """Brings the builders up, and waits until they serve."""
        self.api.apply(*self._certificates(), self._config(""), self._service(), self._deployment())
        self.settle(120)

    def settle(self, within: float) -> None:
        """Waits until the Deployment is what its spec says."""
        status = ("rollout", "status", "--watch=false", f"deployment/{NAME}", "-n", self.namespace)
        eventually(
            lambda: "successfully rolled out" in self.api.must(*status),
            within=within,
            what=f"{self.namespace}/{NAME} is rolled out",
            every=0.5,
        )

    def acts(self) -> Mapping[Kind, Act]:
        """What each kind of disruption is to a Deployment. It has no operator to be killed."""
        return {
            Kind.SCALE_UP: lambda step: self.scale("deployment", OWN_SIZE + 1 + step.among(2)),
            Kind.SCALE_DOWN: lambda step: self.scale("deployment", 1 + step.among(OWN_SIZE)),
            Kind.SCALE_BACK: lambda _: self.scale("deployment", OWN_SIZE),
            Kind.IMAGE: lambda step: self._set("image", f"buildkitd={self.next_image(step)}"),
            Kind.ENV: lambda step: self._set("env", f"TURN={self.turn(step)}"),
            Kind.CONFIG: lambda step: self._restart(self._config(self.next_config(step))),
            Kind.CERTIFICATES: lambda _: self._restart(*self._certificates()),
            Kind.AUTHORITY: self._new_authority,
            Kind.KILL_API: self.kill_api,
            Kind.EVICT: self.evict,
            Kind.DELETE: self.delete,
        }

    def _set(self, what: str, value: str) -> Answer:
        self.api.must("set", what, f"deployment/{NAME}", "-n", self.namespace, value)
        return Result.DONE, ""

    def _restart(self, *objects: dict[str, Any]) -> Answer:
        self.api.apply(*objects)
        self.api.must("rollout", "restart", f"deployment/{NAME}", "-n", self.namespace)
        return Result.DONE, ""

    def _new_authority(self, _: Step) -> Answer:
        self.authority = _new_authority()
        return self._restart(*self._certificates())

    def _metadata(self, name: str) -> dict[str, Any]:
        return {"name": name, "namespace": self.namespace}

    def _certificates(self) -> list[dict[str, Any]]:
        """The Secrets of builders and client, with new certificates of the present authority."""
        return [
            self._secret(SERVER_SECRET, Use.SERVER),
            self._secret(CLIENT_SECRET, Use.CLIENT),
        ]

    def _secret(self, name: str, use: Use) -> dict[str, Any]:
        names = (f"{NAME}.{self.namespace}.svc", "localhost") if use is Use.SERVER else ()
        request = CertificateRequest(
            use=use, common_name=name, dns_names=names, lifetime=timedelta(days=7)
        )
        bundle = issue(self.authority, request, now=datetime.now(UTC))
        files = {
            "ca.pem": bundle.trust,
            "cert.pem": bundle.pair.certificate,
            "key.pem": bundle.pair.key,
        }
        data = {file: base64.b64encode(content).decode() for file, content in files.items()}
        metadata = self._metadata(name)
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}

    def _config(self, toml: str) -> dict[str, Any]:
        data = {"buildkitd.toml": toml}
        metadata = self._metadata(CONFIG)
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}

    def _service(self) -> dict[str, Any]:
        spec = {"selector": LABELS, "ports": [{"port": 1234, "protocol": "TCP"}]}
        metadata = self._metadata(NAME)
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    def _deployment(self) -> dict[str, Any]:
        """The rootless example of BuildKit's own repository, with a configuration file."""
        probe = {
            "exec": {"command": ["buildctl", "debug", "workers"]},
            "initialDelaySeconds": 5,
            "periodSeconds": 30,
        }
        container = {
            "name": "buildkitd",
            "image": IMAGE,
            "args": [
                *("--addr", SOCKET, "--addr", "tcp://0.0.0.0:1234"),
                *("--tlscacert", "/certs/ca.pem"),
                *("--tlscert", "/certs/cert.pem", "--tlskey", "/certs/key.pem"),
                "--oci-worker-no-process-sandbox",
            ],
            "readinessProbe": probe,
            "livenessProbe": probe,
            "securityContext": {
                "seccompProfile": {"type": "Unconfined"},
                "appArmorProfile": {"type": "Unconfined"},
                "runAsUser": 1000,
                "runAsGroup": 1000,
            },
            "ports": [{"containerPort": 1234}],
            "volumeMounts": [
                {"name": "certs", "readOnly": True, "mountPath": "/certs"},
                {"name": "config", "mountPath": "/home/user/.config/buildkit"},
                {"name": "state", "mountPath": "/home/user/.local/share/buildkit"},
            ],
        }
        volumes = [
            {"name": "certs", "secret": {"secretName": SERVER_SECRET}},
            {"name": "config", "configMap": {"name": CONFIG}},
            {"name": "state", "emptyDir": {}},
        ]
        template = {
            "metadata": {"labels": LABELS},
            "spec": {"containers": [container], "volumes": volumes},
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self._metadata(NAME),
            "spec": {
                "replicas": OWN_SIZE,
                "selector": {"matchLabels": LABELS},
                "template": template,
            },
        }
