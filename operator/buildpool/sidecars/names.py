"""The names of the OCI distribution specification: repositories, tags, digests.

Pure, and strict: what passes here becomes a path, of a URL or of a file. Digests are SHA-256, which
is all that the registry's storage and BuildKit write.
"""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "sha256:"
"""What all digests begin with."""
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY: Final = rf"{_PART}(?:/{_PART})*"
TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
DIGEST: Final = rf"{PREFIX}[0-9a-f]{{64}}"
"""Regular expressions, without anchors and groups."""
MAX_REPOSITORY_CHARACTERS: Final = 255
"""Characters of a repository's name."""


def is_repository(text: str) -> bool:
    """Whether it may name a repository; such a name is safe as a path below a folder."""
    return len(text) <= MAX_REPOSITORY_CHARACTERS and re.fullmatch(REPOSITORY, text) is not None


def is_tag(text: str) -> bool:
    """Whether it may name a tag; such a name is safe as the name of a folder."""
    return re.fullmatch(TAG, text) is not None


def is_digest(text: str) -> bool:
    """Whether it is a digest."""
    return re.fullmatch(DIGEST, text) is not None


def hex_of(digest: str) -> str:
    """A digest without its prefix."""
    return digest.removeprefix(PREFIX)
