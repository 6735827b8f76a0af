"""The kinds of field that specs are made of: durations, quantities, ruled text, lists with a key.

Each is the metadata of an ``Annotated`` and knows three things: how its value is read, what the CRD
says about it, and what is wrong with a value. Pure; knows no particular field.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from buildpool.core.api import duration, quantity
from buildpool.core.api.model import VALIDATIONS, Model

_CEL_SECONDS: Final = (
    "(self.contains('d') ? int(self.split('d')[0]) * 86400 : 0) + (self.endsWith('d') ? 0 : "
    "duration(self.contains('d') ? self.split('d')[1] : self).getSeconds())"
)
"""A duration in seconds: CEL knows no days."""

LABEL_KEY_CHARACTERS: Final = 317
"""A DNS subdomain of 253 characters, a slash and a name of 63."""

HOST: Final = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?"
"""A server's ``host`` or ``host:port``, without a scheme."""

ObjectName = Annotated[
    str, Field(pattern="^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", min_length=1, max_length=253)
]
DataKey = Annotated[str, Field(pattern="^[A-Za-z0-9._-]+$", min_length=1, max_length=253)]
"""A key within a Secret or ConfigMap."""
LabelKey = Annotated[
    str,
    Field(
        pattern="^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$",
        max_length=LABEL_KEY_CHARACTERS,
    ),
]
LabelValue = Annotated[
    str, Field(pattern="^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$", max_length=63)
]


@dataclass(frozen=True, slots=True)
class DurationText:
    """A ``timedelta`` written like ``2h30m``, within limits."""

    minimum: timedelta
    maximum: timedelta

    def complaint(self, value: timedelta) -> tuple[str, str] | None:
        """A duration outside the limits."""
        if self.minimum <= value <= self.maximum:
            return None
        spell = duration.format_duration
        return (
            f"{spell(value)} is out of range",
            f"choose between {spell(self.minimum)} and {spell(self.maximum)}",
        )

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: duration.parse_duration(value) if isinstance(value, str) else value,
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(
                duration.format_duration, when_used="json-unless-none"
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        low, high = (int(limit.total_seconds()) for limit in (self.minimum, self.maximum))
        spell = duration.format_duration
        return {
            "type": "string",
            "pattern": duration.PATTERN,
            "minLength": 2,
            "maxLength": duration.MAX_CHARACTERS,
            VALIDATIONS: [
                {
                    "rule": f"[{_CEL_SECONDS}].all(s, s >= {low} && s <= {high})",
                    "message": f"out of range; choose between {spell(self.minimum)} and "
                    f"{spell(self.maximum)}",
                    "reason": "FieldValueInvalid",
                }
            ],
        }


@dataclass(frozen=True, slots=True)
class QuantityText:
    """A Kubernetes quantity, kept in its canonical spelling, not below a minimum."""

    minimum: str = "0"

    def complaint(self, value: str) -> tuple[str, str] | None:
        """A quantity below the minimum."""
        if quantity.parse(value) >= quantity.parse(self.minimum):
            return None
        return f"{value} is too small", f"choose {self.minimum} or more"

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(quantity.canonical, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        result: JsonSchemaValue = {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": quantity.PATTERN,
            "maxLength": quantity.MAX_CHARACTERS,
        }
        if self.minimum != "0":
            result[VALIDATIONS] = [
                {
                    "rule": "isQuantity(string(self)) && "
                    f"quantity(string(self)).compareTo(quantity('{self.minimum}')) >= 0",
                    "message": f"too small; choose {self.minimum} or more",
                    "reason": "FieldValueInvalid",
                }
            ]
        return result


@dataclass(frozen=True, slots=True)
class TextRule:
    """Text that must match a regular expression, or must not, and why in words.

    The expression is one that Go and Python read alike. Text with ``exempt`` in it is left alone.
    """

    matches: str
    message: str
    remedy: str
    forbidden: bool = False
    exempt: str = ""

    def complaint(self, value: str) -> tuple[str, str] | None:
        """Text that breaks the rule."""
        if self.exempt and self.exempt in value:
            return None
        if bool(re.search(self.matches, value, re.ASCII)) != self.forbidden:
            return None
        return self.message, self.remedy

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        result = handler(schema)
        rule = f"{'!' if self.forbidden else ''}self.matches(r'{self.matches}')"
        result.setdefault(VALIDATIONS, []).append(
            {
                "rule": f"self.contains('{self.exempt}') || {rule}" if self.exempt else rule,
                "message": f"{self.message}; {self.remedy}",
                "reason": "FieldValueInvalid",
            }
        )
        return result


@dataclass(frozen=True, slots=True)
class ReadableHost:
    """A host, or what begins with one, a URL too, whose labels in Punycode stand for letters.

    CEL cannot read them, so the CRD says nothing about it.
    """

    def complaint(self, value: str) -> tuple[str, str] | None:
        """A label that no name server can be asked for."""
        authority = value.removeprefix("http://").removeprefix("https://").partition("/")[0]
        name, _, address_port = authority.rpartition("]")  # an address of IPv6 has brackets
        host, _, port = ("", "", address_port[1:]) if name else authority.partition(":")
        for label in host.split("."):
            if label.startswith("xn--") and not _stands_for_letters(label.removeprefix("xn--")):
                return f"{label} in the host is no valid name", "correct its spelling"
        if port and not 0 < int(port) < 65536:
            return f"there is no port {port}", "choose one between 1 and 65535"
        return None


def _stands_for_letters(punycode: str) -> bool:
    try:
        text = punycode.encode("ascii").decode("punycode")
    except UnicodeError:
        return False
    return text.isprintable() and not text.isascii()


@dataclass(frozen=True, slots=True)
class UniqueBy:
    """A list in which each entry has its own value of one field, so that it can be named by it."""

    key: str

    def complaint(self, value: tuple[Model, ...]) -> tuple[str, str] | None:
        """Entries with the same key."""
        counts = Counter(str(getattr(entry, self.key)) for entry in value)
        twice = sorted(key for key, count in counts.items() if count > 1)
        if not twice:
            return None
        return f"the {self.key} {twice[0]!r} stands twice", "keep one entry of this name"

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) | {
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": [self.key],
        }


def preserve_unknown_fields(schema: dict[str, Any]) -> None:
    """Mark an object whose fields Kubernetes itself checks later."""
    kept = {key: schema[key] for key in ("description",) if key in schema}
    schema.clear()
    schema.update(kept | {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
