"""Words: vocabularies for machines that know what they mean to people, and numbers of things.

Pure. Documentation is generated from the meanings.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Word(StrEnum):
    """A string that knows what it means."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        """The word itself; its meaning is an attribute beside it."""
        word = str.__new__(cls, value)
        word._value_ = value
        word.meaning = meaning
        return word


def counted(number: int, noun: str) -> str:
    """A number of things, with the noun in the number it needs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
