"""The wire format of protobuf, as far as it is needed to read a few fields and to add some.

Pure. No library: messages are read without being decoded as a whole, and what is added to one
leaves all its other bytes as they are.

Stricter than BuildKit's decoder, and never laxer: that one cuts numbers of fields to 32 bits, and
does not look at the forms in entries of maps. Anyone who sends what only one of both understands
could hide it from us, so such bytes are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from buildpool.core.errors import BuildpoolError

MAX_TEXT_BYTES: Final = 64 << 10
"""Of a text that is read. Names and references are far shorter; others are not read."""

_MAX_NUMBER: Final = 2**29 - 1
VARINT: Final = 0
DELIMITED: Final = 2
_FIXED: Final = {1: 8, 5: 4}


class WireError(BuildpoolError):
    """Bytes that are not what they should be. Never quotes them."""


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Number and value of each field; None for values of a fixed size, which nobody asks for.

    A value of variable length is a view: nothing is copied. Raises WireError.
    """
    data = memoryview(data)
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, form = tag >> 3, tag & 7
        if number == 0:
            raise WireError("a field has no number")
        if number > _MAX_NUMBER:
            raise WireError("a field has a number that is too large")
        if form == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if form == DELIMITED:
            size, at = _varint(data, at)
        elif form in _FIXED:
            size = _FIXED[form]
        else:
            raise WireError(f"a field has the unknown form {form}")
        if size > len(data) - at:
            raise WireError("a message ends in the middle of a field")
        yield number, data[at : at + size] if form == DELIMITED else None
        at += size


def text(value: int | memoryview | None, name: str = "") -> str:
    """A field that is text. Raises WireError, also where it is longer than ``MAX_TEXT_BYTES``.

    ``name`` is what the field is called in the words of an error: one of ours, never the client's.
    """
    what = f"field {name}" if name else "a field"
    if not isinstance(value, memoryview):
        raise WireError(f"{what} is not text")
    if len(value) > MAX_TEXT_BYTES:
        raise WireError(f"{what} has more than {MAX_TEXT_BYTES} bytes")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise WireError(f"{what} is not UTF-8") from None


class Reader:
    """Reads one message of a stranger, and the messages in it: so many fields in all.

    Each costs some time and memory, and the smallest has two bytes.
    """

    def __init__(self, most: int) -> None:
        """``most`` is the number of fields that may be read."""
        self._most = self._left = most

    def fields(self, data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
        """As the function does. Raises WireError, also where there are too many."""
        for each in fields(data):
            if not self._left:
                raise WireError(f"a message has more than {self._most} fields")
            self._left -= 1
            yield each

    def entry(self, value: int | memoryview | None) -> tuple[str, memoryview]:
        """Key and value of one entry of a map from text to text or messages. Raises WireError."""
        key, content = "", memoryview(b"")
        if not isinstance(value, memoryview):
            raise WireError("map entry is not a message")
        for number, part in self.fields(value):
            if number == 1:
                key = text(part, "key of a map entry")
            elif number == 2:
                if not isinstance(part, memoryview):
                    raise WireError("the value of a map entry is neither text nor a message")
                content = part
        return key, content


def field(number: int, content: bytes) -> bytes:
    """A field of variable length: text, bytes or a message."""
    return _encoded(number << 3 | DELIMITED) + _encoded(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """A field that is a number."""
    return _encoded(number << 3 | VARINT) + _encoded(value)


def map_fields(number: int, content: Mapping[str, str]) -> bytes:
    """A map from text to text, sorted by key."""
    return b"".join(
        field(number, field(1, key.encode()) + field(2, value.encode()))
        for key, value in sorted(content.items())
    )


def _encoded(number: int) -> bytes:
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, without sign, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            raise WireError("a message ends in the middle of a number")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (2**64 - 1), at
    raise WireError("a number has more than 64 bits")
