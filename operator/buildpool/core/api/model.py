"""What all models of the custom resource share: one definition of a rule for both sides.

A rule is written once, as a CEL expression with its Python twin: the API server refuses with the
one, the operator and offline commands with the other, in the same words. Pure; knows no particular
field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Protocol, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, GetJsonSchemaHandler, JsonValue
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from buildpool.core.api.duration import format_duration
from buildpool.core.errors import Problem

VALIDATIONS: Final = "x-kubernetes-validations"


def _with_zone(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_with_zone)]
"""A moment that can be compared with any other: where others left out the zone, it is UTC."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition between the fields of one object."""

    cel: str
    """The condition in CEL, where ``self`` is the object after defaults."""
    holds: Callable[[Any], bool]
    """The same condition of the model."""
    message: str
    remedy: str
    field: str = ""
    """The field to blame, below the object; empty for the object as a whole."""
    spares_stored: bool = False
    """Whether a pool that was stored before the rule was made is tended all the same. Then a
    condition says what does not work."""

    def problem(self, path: str) -> Problem:
        """The rule as broken by the object at ``path``."""
        return Problem(f"{path}.{self.field}" if self.field else path, self.message, self.remedy)

    def schema(self) -> dict[str, str]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        entry = {
            "rule": self.cel,
            "message": f"{self.message}; {self.remedy}",
            "reason": "FieldValueInvalid",
        }
        return entry | ({"fieldPath": f".{self.field}"} if self.field else {})


@runtime_checkable
class Check(Protocol):
    """A limit on the value of one field, given in its ``Annotated``."""

    def complaint(self, value: Any) -> tuple[str, str] | None:
        """What is wrong with the value and the remedy; None if nothing."""


class Model(BaseModel):
    """A frozen object in the custom resource: camelCase outside, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_by_alias=True,
        validate_by_name=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """The object as Kubernetes writes it: plain JSON values, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema with our rules, and with defaults as the API server fills them in."""
        reference = handler(schema)
        result = handler.resolve_ref_schema(reference)
        for name, info in cls.model_fields.items():
            entry = result["properties"][info.alias or name]
            entry.pop("default", None)
            if (default := default_of(info)) is not None:
                entry["default"] = default
        if cls.rules:
            result[VALIDATIONS] = [rule.schema() for rule in cls.rules]
        return reference


def exactly_one(first: str, second: str, *, remedy: str) -> Rule:
    """A rule that one of two fields is set and the other is not; given by their camelCase names."""

    def holds(model: Model) -> bool:
        given = model.to_dict()
        return (first in given) != (second in given)

    return Rule(
        cel=f"has(self.{first}) != has(self.{second})",
        holds=holds,
        message=f"exactly one of {first} and {second} must be set",
        remedy=remedy,
    )


def default_of(info: FieldInfo) -> JsonValue:
    """What the API server fills in for an absent field; None where absence means the same."""
    return _filled_in(None if info.is_required() else info.get_default(call_default_factory=True))


def _filled_in(value: object) -> JsonValue:
    """A value as the API server fills it in; None for an empty one."""
    match value:
        case Model():
            return _sparse(value)
        case tuple() if value:
            return [_filled_in(item) for item in value]
        case timedelta():
            return format_duration(value)
        case StrEnum():
            return value.value
        case bool() | int() | str() if value != "":
            return value
        case _:
            return None


def _sparse(value: Model) -> dict[str, JsonValue]:
    """Only what differs from the defaults of the fields below, which apply on their own."""
    return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
