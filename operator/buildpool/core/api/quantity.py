"""Kubernetes quantities (``500m``, ``20Gi``, ``1e3``) as exact numbers and back.

Pure. Quantities never become floats. ``canonical`` spells a quantity as the API server stores it in
a pod, rounded up to thousandths, so that what is planned and what is read back compare equal.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Final

_NUMBER: Final = r"[0-9]+(\.[0-9]+)?"
_SUFFIX: Final = "[KMGTPE]i|[mkMGTPE]|[eE]-?[0-9]{1,2}"
PATTERN: Final = f"^{_NUMBER}({_SUFFIX})?$"
"""What the custom resource accepts: no sign, nothing too small to be kept. Go reads it alike."""
MAX_CHARACTERS: Final = 32

_BINARY: Final = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)}
_DECIMAL: Final = {"m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_QUANTITY: Final = re.compile(f"(?P<number>{_NUMBER})(?P<suffix>{_SUFFIX})?")
_SMALLEST: Final = Decimal("1e-3")
_LARGEST: Final = 2**63 - 1
_PRECISION: Final = 256
"""More digits than any quantity of ``MAX_CHARACTERS`` characters has: arithmetic stays exact."""


def parse(text: str | int) -> Decimal:
    """The number a quantity stands for, rounded up to thousandths; otherwise exact."""
    number, suffix = _split(text)
    with localcontext(prec=_PRECISION):
        value = number * _factor(suffix)
        if value > _LARGEST:
            raise ValueError(f"{text!r} is larger than a quantity can be")
        return value.quantize(_SMALLEST, rounding=ROUND_CEILING)


def parse_bytes(text: str | int) -> int:
    """A quantity of storage or memory in whole bytes, rounded up."""
    return int(parse(text).to_integral_value(rounding=ROUND_CEILING))


def canonical(text: str | int) -> str:
    """The quantity as the API server spells it: no fraction, the largest suffix without one."""
    _, suffix = _split(text)
    value = parse(text)
    if value == 0:
        return "0"
    if suffix in _BINARY and value >= 1024 and value == value.to_integral_value():
        return _format_binary(int(value))
    return _format_decimal(value, exponential=suffix not in (*_BINARY, *_DECIMAL))


def format_bytes(number: int) -> str:
    """A number of bytes as a canonical quantity with a binary suffix."""
    return canonical(number) if number < 1024 else _format_binary(number)


def _split(text: str | int) -> tuple[Decimal, str]:
    spelled = str(text)
    match = _QUANTITY.fullmatch(spelled)
    if match is None or len(spelled) > MAX_CHARACTERS:
        raise ValueError(f"{spelled[:MAX_CHARACTERS]!r} is not a quantity such as 500m, 2 or 20Gi")
    return Decimal(match["number"]), match["suffix"] or ""


def _factor(suffix: str) -> Decimal:
    if suffix in _BINARY:
        return Decimal(_BINARY[suffix])
    if suffix in _DECIMAL:
        return Decimal(1).scaleb(_DECIMAL[suffix])
    return Decimal(1).scaleb(int(suffix[1:]))


def _format_binary(number: int) -> str:
    suffix = ""
    for candidate, factor in _BINARY.items():
        if number % factor == 0:
            suffix = candidate
    return f"{number // _BINARY.get(suffix, 1)}{suffix}"


def _format_decimal(value: Decimal, *, exponential: bool) -> str:
    with localcontext(prec=_PRECISION):
        exponent = next(
            power
            for power in range(18, -6, -3)
            if value.scaleb(-power) == value.scaleb(-power).to_integral_value()
        )
        number = int(value.scaleb(-exponent))
    if exponential:
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL_SUFFIX[exponent]}"
