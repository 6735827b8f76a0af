from __future__ import annotations

import pytest
import tomli_w
from hypothesis import assume, given
from hypothesis import strategies as st

from buildpool.core.api.daemon_config import KNOWN, MANAGED, TomlType, config_problems, dotted

EXAMPLES = {
    TomlType.BOOLEAN: True,
    TomlType.INTEGER: 7,
    TomlType.STRING: "text",
    TomlType.STRINGS: ["a", "b"],
    TomlType.STRING_TABLE: {"a": "b"},
    TomlType.DURATION: "48h",
    TomlType.TABLE: {"any": {"thing": 1}},
}


def complaints(text: str) -> list[str]:
    return [str(problem) for problem in config_problems(text, "spec.builders.config")]


def nested(name: tuple[str, ...], value: object) -> str:
    document: dict[str, object] = {name[-1]: value}
    for part in reversed(name[:-1]):
        document = {part: document}
    return tomli_w.dumps(document)


@pytest.mark.parametrize("name", sorted(KNOWN), ids=dotted)
def test_a_key_of_the_user_is_accepted_with_a_value_of_its_kind(name: tuple[str, ...]) -> None:
    assert complaints(nested(name, EXAMPLES[KNOWN[name]])) == []


@pytest.mark.parametrize("name", sorted(KNOWN), ids=dotted)
def test_a_value_of_another_kind_is_refused(name: tuple[str, ...]) -> None:
    (complaint,) = complaints(nested(name, [1.5]))
    assert complaint == (
        f"spec.builders.config: {dotted(name)} has a wrong value; give {KNOWN[name].value}."
    )


@pytest.mark.parametrize("name", sorted(MANAGED), ids=dotted)
def test_a_key_of_the_operator_is_refused_with_what_to_do_instead(name: tuple[str, ...]) -> None:
    (complaint,) = complaints(nested(name, "x"))
    assert complaint.startswith(f"spec.builders.config: {dotted(name)} is not yours to set")
    assert "remove it" in complaint or "use spec." in complaint


REMEDIES = {
    "a key in the wrong case": ("[log]\nLevel = 'debug'", "write log.level"),
    "a misspelled key": ("[dns]\nnameserver = ['1.1.1.1']", "write dns.nameservers"),
    "a frontend without its quotes": (
        "[frontend.dockerfile.v0]\nenabled = true",
        'write frontend."dockerfile.v0"',
    ),
    "a key at the wrong place": ("nameservers = ['1.1.1.1']", "write dns.nameservers"),
    "a misspelled key of the operator": (
        "[worker.oci]\nmax_parallelism = 4",
        "if worker.oci.max-parallelism is meant, use spec.builders.maxParallelism",
    ),
    "a key like no other": ("zebra = 1", "remove it; BuildKit v0.34.2 would ignore it"),
}


@pytest.mark.parametrize(("text", "remedy"), REMEDIES.values(), ids=REMEDIES)
def test_an_unknown_key_is_refused_with_the_nearest_name(text: str, remedy: str) -> None:
    (complaint,) = complaints(text)
    assert "buildkitd knows no key" in complaint
    assert complaint.endswith(f"; {remedy}.")


@given(
    above=st.sampled_from(
        [(), ("worker", "oci"), ("log",), ("system",), ("frontend", "dockerfile.v0")]
    ),
    key=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1),
)
def test_an_unknown_key_is_always_refused_by_its_full_name(
    above: tuple[str, ...], key: str
) -> None:
    name = (*above, key)
    known = {*KNOWN, *MANAGED}
    assume(not any(path[: len(name)] == name for path in known))
    (complaint,) = complaints(nested(name, 1))
    assert complaint.startswith(f"spec.builders.config: buildkitd knows no key {dotted(name)};")


def test_every_problem_is_told_not_only_the_first() -> None:
    text = "root = '/x'\nzebra = 1\n[log]\nlevel = 5\n[worker.oci]\ngc = true\n"
    assert len(complaints(text)) == 4


def test_text_that_is_no_toml_is_refused_with_the_place() -> None:
    (complaint,) = complaints("[log\nlevel = 'debug'")
    assert "not valid TOML" in complaint
    assert "line 1" in complaint


def test_a_scalar_where_a_table_belongs_is_refused() -> None:
    (complaint,) = complaints("log = 'debug'")
    assert complaint == "spec.builders.config: log has a wrong value; give a table."


def test_no_configuration_is_no_problem() -> None:
    assert complaints("") == []
