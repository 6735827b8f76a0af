"""An admission webhook that changes what is stored, as users' clusters have them.

It is no admission policy: those that change something came with Kubernetes 1.36.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from buildpool.core.pki import CertificateRequest, Use, issue, issue_authority
from cluster import Api

ADDRESS = "127.0.0.1"
"""Where the API server reaches it: that of a devcluster is in the network of the tests."""
HOUR = timedelta(hours=1)

Change = Callable[[dict[str, Any]], list[dict[str, Any]]]
"""From a Deployment to a JSON patch; an empty one leaves it as it is."""


@contextmanager
def a_webhook(api: Api, namespace: str, change: Change) -> Iterator[None]:
    """While it lasts, Deployments of a namespace are changed so.

    It is there, and perhaps not yet known to the API server.
    """
    with _server(change) as (port, trust):
        rules = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}
        api.apply(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": namespace},
                "webhooks": [
                    {
                        "name": "changes.buildpool.test",
                        "clientConfig": {
                            "url": f"https://{ADDRESS}:{port}/",
                            "caBundle": base64.b64encode(trust).decode(),
                        },
                        "rules": [{**rules, "operations": ["CREATE", "UPDATE"]}],
                        "namespaceSelector": {
                            "matchLabels": {"kubernetes.io/metadata.name": namespace}
                        },
                        "sideEffects": "None",
                        "admissionReviewVersions": ["v1"],
                        "timeoutSeconds": 30,
                        # It is gone a moment before the API server knows that.
                        "failurePolicy": "Ignore",
                    }
                ],
            }
        )
        try:
            yield
        finally:
            api.must("delete", "mutatingwebhookconfiguration", namespace)


@contextmanager
def _server(change: Change) -> Iterator[tuple[int, bytes]]:
    """Its port, and the certificate of the authority that it is trusted by."""

    class Hook(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            request = json.loads(self.rfile.read(length))["request"]
            patch = json.dumps(change(request["object"])).encode()
            response = {
                "uid": request["uid"],
                "allowed": True,
                "patchType": "JSONPatch",
                "patch": base64.b64encode(patch).decode(),
            }
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
            body = json.dumps({**review, "response": response}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    now = datetime.now(UTC)
    authority = issue_authority("webhook", now=now, lifetime=HOUR)
    request = CertificateRequest(Use.SERVER, "webhook", HOUR, ip_addresses=(ADDRESS,))
    pair = issue(authority, request, now=now).pair
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "server.pem"
        file.write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(file)
    with ThreadingHTTPServer((ADDRESS, 0), Hook) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port, authority.certificate
        finally:
            server.shutdown()
