"""Secrets: how certificates and authorities are laid out in them, and read back.

Private keys pass through here as bytes and are never formatted into a message.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.objects.refs import Object
from buildpool.core.pki import Authority, AuthorityPhase, Bundle, KeyPair
from buildpool.core.resources.common import pool_metadata, sealed


def certificate_secret(pool: Pool, name: str, bundle: Bundle, *, component: str) -> Object:
    """A certificate with its key and the authority it is to be checked against.

    Under two sets of names: the ones of BuildKit's own examples and clients (``ca.pem``,
    ``cert.pem``, ``key.pem``) and those of ``kubernetes.io/tls``.
    """
    trust, certificate, key = bundle.trust, bundle.pair.certificate, bundle.pair.key
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": pool_metadata(pool, name, component=component),
            "type": "kubernetes.io/tls",
            "data": _encoded(
                {
                    "ca.pem": trust,
                    "cert.pem": certificate,
                    "key.pem": key,
                    "ca.crt": trust,
                    "tls.crt": certificate,
                    "tls.key": key,
                }
            ),
        }
    )


def certificate_volume(name: str, secret: str, *, mode: int | None = None) -> Object:
    """The volume of a pod with a certificate Secret, under the names that BuildKit's clients use.

    ``mode`` is that of the files; None: Kubernetes' own.
    """
    source: Object = {"secretName": secret}
    if mode is not None:
        source["defaultMode"] = mode
    source["items"] = [{"key": key, "path": key} for key in ("ca.pem", "cert.pem", "key.pem")]
    return {"name": name, "secret": source}


def authority_secret(
    pool: Pool,
    authority: Authority,
    *,
    namespace: str,
    clients: Sequence[str],
    rotated: str | None = None,
) -> Object:
    """A pool's authority, in the operator's own namespace, where no user of the pool can read it.

    ``tls.*`` is the one that signs; while it is being replaced, ``next.*`` is its successor or
    ``previous.crt`` its predecessor, and an annotation says since when every Secret knows.

    An owner reference cannot cross namespaces, so the pool's uid stands in an annotation. Beside it
    stand the clients that have a Secret: we may not list Secrets in the pool's namespace, and this
    note, written before any of them, is how one that is no longer wanted is found again; and
    ``rotated``, the request for other certificates that is carried out, or was.
    """
    signer, upcoming, previous = authority.signer, authority.upcoming, authority.previous
    data = {"tls.crt": signer.certificate, "tls.key": signer.key}
    if upcoming is not None:
        data |= {"next.crt": upcoming.certificate, "next.key": upcoming.key}
    if previous is not None:
        data["previous.crt"] = previous
    annotations = {
        **naming.KEPT,
        naming.ANNOTATION_POOL_UID: pool.uid,
        naming.ANNOTATION_CLIENTS: ",".join(sorted(clients)),
    }
    if rotated is not None:
        annotations[naming.ANNOTATION_ROTATED] = rotated
    if authority.since is not None:
        annotations[naming.ANNOTATION_PHASE_SINCE] = authority.since.isoformat()
    return sealed(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": naming.authority(pool.key),
                "namespace": namespace,
                "labels": {
                    **naming.detached_labels(pool.key),
                    "app.kubernetes.io/component": naming.COMPONENT_AUTHORITY,
                },
                "annotations": annotations,
            },
            "type": "kubernetes.io/tls",
            "data": _encoded(data),
        }
    )


def bundle_of(secret: Object | None) -> Bundle | None:
    """What a certificate Secret holds; None where it is absent or a part is missing."""
    trust = _decoded(secret, "ca.pem")
    pair = pair_of(secret)
    return None if pair is None or trust is None else Bundle(pair=pair, trust=trust)


def authority_in(secret: Object | None) -> Authority | None:
    """The authority in a Secret; None where there is none that could sign.

    Half of a successor is one that is unreadable, so that it is made anew rather than forgotten.
    """
    signer = pair_of(secret)
    if signer is None:
        return None
    upcoming = None
    if "next.crt" in _data(secret) or "next.key" in _data(secret):
        certificate, key = _decoded(secret, "next.crt"), _decoded(secret, "next.key")
        upcoming = KeyPair(certificate=certificate or b"", key=key or b"")
    found = Authority(signer, upcoming=upcoming, previous=_decoded(secret, "previous.crt"))
    if found.phase is AuthorityPhase.STEADY:
        return found
    return replace(found, since=_since(secret))


def pair_of(secret: Object | None) -> KeyPair | None:
    """The certificate and key in a Secret; None where it is absent or a part is missing."""
    certificate, key = _decoded(secret, "tls.crt"), _decoded(secret, "tls.key")
    return None if certificate is None or key is None else KeyPair(certificate=certificate, key=key)


def _encoded(data: dict[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in sorted(data.items())}


def _since(secret: Object | None) -> datetime | None:
    """When the present phase began to count; None where nobody knows."""
    annotations = ((secret or {}).get("metadata") or {}).get("annotations") or {}
    try:
        moment = datetime.fromisoformat(annotations.get(naming.ANNOTATION_PHASE_SINCE, ""))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _data(secret: Object | None) -> dict[str, str]:
    return (secret or {}).get("data") or {}


def _decoded(secret: Object | None, key: str) -> bytes | None:
    value = _data(secret).get(key)
    if not value:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return None
