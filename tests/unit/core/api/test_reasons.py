from __future__ import annotations

import re
from pathlib import Path

import pytest

import buildpool
from buildpool.core.api.reasons import ConditionType, EventReason, Reason, RetireReason, SizeReason

WORDS = [*ConditionType, *Reason, *SizeReason, *RetireReason, *EventReason]
SENTENCE = r"(`[^`]+`|[A-Z])(`[^`]+`|[^.`])*\."
"""A dot may stand in the path of a field."""


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_camel_case_and_named_alike(word: Reason) -> None:
    assert re.fullmatch(r"([A-Z][a-z]+)+", word)
    assert word.name.replace("_", "").lower() == word.lower()


@pytest.mark.parametrize("word", WORDS)
def test_a_word_tells_its_meaning_in_one_sentence(word: Reason) -> None:
    assert re.fullmatch(SENTENCE, word.meaning)


def test_a_word_is_the_string_kubernetes_stores() -> None:
    assert f"{Reason.INVALID_SPEC}" == "InvalidSpec"
    assert Reason("InvalidSpec") is Reason.INVALID_SPEC


def test_every_word_is_said_somewhere() -> None:
    """A reason that nothing gives would be a promise of the reference that nobody keeps."""
    package = Path(buildpool.__file__).parent
    source = "".join(f.read_text() for f in package.rglob("*.py") if f.name != "reasons.py")
    assert [w for w in WORDS if f"{type(w).__name__}.{w.name}" not in source] == []
