"""Words: vocabularies for machines that know what they mean to people, findings, numbers of things.

Pure. Documentation is generated from the meanings.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Self, TypeVar


class Word(StrEnum):
    """A string that knows what it means."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        """The word itself; its meaning is an attribute beside it."""
        word = str.__new__(cls, value)
        word._value_ = value
        word.meaning = meaning
        return word


R_co = TypeVar("R_co", bound=Word, covariant=True)


@dataclass(frozen=True, slots=True)
class Finding(Generic[R_co]):
    """Why something is as it is. One pair for condition, Event and log alike."""

    reason: R_co
    """For machines: one word of a vocabulary."""
    message: str
    """For people: names the object and the remedy."""


def counted(number: int, noun: str) -> str:
    """A number of things, with the noun in the number it needs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
