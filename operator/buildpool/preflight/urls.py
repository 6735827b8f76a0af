"""Foreign text, read as URLs: the only place that does, so that no later use of a URL can fail.

Pure. The library decodes the parts of a URL when they are asked for, and what is garbled may fail
only then, each time with an error of its own. Here all parts are asked for once.
"""

from __future__ import annotations

import re
from typing import Final

from yarl import URL

_SENDABLE: Final = re.compile(r"[!-~]+")
"""What may stand in the first line of a request."""


def url_of(text: str, *, base: URL | None = None) -> URL | None:
    """The URL that can be asked; None where there is none. With a ``base``, it may be relative.

    One with a user in it is none: nobody but the pool says who asks.
    """
    try:
        url = URL(text) if base is None else base.join(URL(text, encoded=True))
        return url if _is_usable(url) else None
    except Exception:  # noqa: BLE001 - ValueError and IndexError are known; the text is anybody's
        return None


def with_query(url: URL, **values: str | None) -> URL | None:
    """The URL with these values after those it has; None where they fit into no URL."""
    try:
        extended = url.extend_query({key: value for key, value in values.items() if value})
        return extended if _is_usable(extended) else None
    except Exception:  # noqa: BLE001 - likewise
        return None


def name_of(url: URL) -> str:
    """The host as it is looked up: in ASCII, and the same with a dot at its end and without."""
    return (url.raw_host or "").rstrip(".")


def _is_usable(url: URL) -> bool:
    return (
        url.scheme in ("http", "https")
        and url.user is None
        and url.password is None
        and (url.host or "").isprintable()
        and (url.host_port_subcomponent or "").isprintable()
        and bool(name_of(url))
        and name_of(url).isascii()
        and bool(url.port)
        and _SENDABLE.fullmatch(url.raw_path_qs) is not None
    )
