"""The domain of a cluster: what the names of its Services end with, such as ``cluster.local``.

Nothing in the API of Kubernetes says it. The kubelet writes it into the ``resolv.conf`` of pods,
which is text that others may have edited. Pure.
"""

from __future__ import annotations

import re
from typing import Final

MAX_DOMAIN_CHARACTERS: Final = 120
"""Characters. Before it there is room for the name and the namespace of any Service: both together
may have no more than the 253 characters of a DNS name."""
_LABEL: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_ADDRESS: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


def parse_domain(text: str) -> str:
    """A domain as names of Services end with it: in lower case, without a dot at its end.

    Raises ValueError.
    """
    domain = text.removesuffix(".").lower() if text.isascii() else text
    if not _DOMAIN.fullmatch(domain) or _ADDRESS.fullmatch(domain):
        raise ValueError(f"{text!r} is no domain; write it like cluster.local")
    if len(domain) > MAX_DOMAIN_CHARACTERS:
        raise ValueError(f"{text!r} is longer than {MAX_DOMAIN_CHARACTERS} characters")
    return domain


def domain_in(resolv_conf: str, namespace: str) -> str | None:
    """The cluster's domain by the ``resolv.conf`` of a pod in this namespace; None if it is silent.

    The search list of a pod begins with ``<namespace>.svc.<domain>``. As for the resolver, the last
    list counts. Where no list is like that, this is no pod, or one with the DNS of its node.
    """
    before = f"{namespace.lower()}.svc."
    for name in _search_list(resolv_conf):
        if name.lower().startswith(before):
            try:
                return parse_domain(name[len(before) :])
            except ValueError:
                continue
    return None


def _search_list(resolv_conf: str) -> list[str]:
    # A carriage return and the like end no line for the resolver.
    words = (line.split() for line in resolv_conf.split("\n") if line[:1].isalpha())
    lists = [rest for keyword, *rest in filter(None, words) if keyword in ("search", "domain")]
    return lists[-1] if lists else []
