"""YAML that people write: bounded, unambiguous, with places; and written so that any reader has the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from core import yaml_text
from core.yaml_text import Document, YamlProblems

LIMITS = {"levels": 20, "parts": 1000, "documents": 3}


def read(text: str) -> Document:
    [document] = yaml_text.read(text, **LIMITS)
    return document


def refused(text: str) -> list[tuple[str, int, int]]:
    with pytest.raises(YamlProblems) as caught:
        yaml_text.read(text, **LIMITS)
    return [(problem.message, problem.line, problem.column) for problem in caught.value.problems]


# What PostgreSQL holds: no NUL, no halves of surrogate pairs, finite numbers of 64 bits.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
LINES = st.lists(st.one_of(TEXT, st.sampled_from(["", " ", "  x", "\t", "# no comment", "- x", "a: b", "---", "..."])))
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
HARD = st.sampled_from(
    ["yes", "NO", "on", "null", "~", "", "017", "0x1f", "1e5", "1_0", "1:30", "2026-01-31", ".inf", "<<"]
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, HARD, LINES.map("\n".join))
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT | HARD, inner, max_size=4)),
    max_leaves=15,
)


@settings(max_examples=250, deadline=None)
@given(st.dictionaries(TEXT | HARD, JSON, max_size=5))
def test_what_is_written_is_read_back_by_us_and_by_others(value: dict[str, Any]) -> None:
    text = yaml_text.write(value)
    assert read(text).value == value
    assert yaml_text.write(read(text).value) == text
    assert yaml.safe_load(text) == value
    assert read(yaml_text.write(value, literally=False)).value == value


def test_texts_of_several_lines_stand_as_they_are() -> None:
    value = {"prompt": "# Title\n\n  - indented, with a space at the end \nlast\n", "steps": ["one\ntwo", "three\n\n"]}
    assert yaml_text.write(value) == (
        "prompt: |\n  # Title\n\n    - indented, with a space at the end \n  last\n"
        "steps:\n  - |-\n    one\n    two\n  - |+\n    three\n\n"
    )


def test_keys_of_any_length_are_written() -> None:
    value = {"k" * 5000: {"é" * 5000: [1]}}
    assert yaml.safe_load(yaml_text.write(value)) == value == read(yaml_text.write(value)).value


def test_every_part_has_its_place() -> None:
    document = read("# first\na:\n  b: [1, two]\n  c:\n    - d: x\n")
    assert document.value == {"a": {"b": [1, "two"], "c": [{"d": "x"}]}}
    assert document.place(("a", "b", 1)) == (3, 10)
    assert document.place(("a", "c", 0, "d")) == (5, 7)
    assert document.place(("a", "missing", "deeper")) == (2, 1)


def test_scalars_are_those_of_json() -> None:
    document = read("[1, -2.5, 1e3, true, False, null, ~, 1.2.3, v1, '1', \"no\", y]")
    assert document.value == [1, -2.5, 1000.0, True, False, None, None, "1.2.3", "v1", "1", "no", "y"]
    assert document.spellings[(2,)] == "1e3"


@pytest.mark.parametrize(
    "scalar",
    [
        "yes",
        "No",
        "ON",
        "off",
        "017",
        "0o17",
        "0x1F",
        "0b1",
        "1_000",
        "1:30",
        "+1",
        ".5",
        "1.",
        ".inf",
        ".NaN",
        "2026-01-31",
    ],
)
def test_what_versions_of_yaml_read_differently_is_refused_with_what_to_do(scalar: str) -> None:
    [(message, line, column)] = refused(f"a: x\nb: {scalar}\n")
    assert (line, column) == (2, 4)
    assert scalar in message
    assert "quotes" in message


def test_all_problems_are_told_at_once() -> None:
    found = refused("a: &x 1\nb: !!str 2\na: 3\n1: no\n<<: {c: d}\n? [k]\n: v\n")
    assert [(line, column) for _, line, column in found] == [(1, 4), (2, 4), (3, 1), (4, 1), (4, 4), (5, 1), (6, 3)]
    said = " ".join(message for message, _, _ in found)
    for word in ("anchors", "tags", "second time", "line 1", "key is text", "merge keys"):
        assert word in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x]\nb: [*a]", "aliases"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "1," * 100_000 + "]", "too many parts"),
        ("a\n---\n" * 10, "too many documents"),
        ("%TAG ! tag:x,2000:\n---\na: 1", "tags"),
        ("a: !!python/object/apply:os.system [ls]", "tags"),
        ("a: [1", "expected"),
        ("a: b: c", "not allowed"),
        ("a: \x00", "not allowed"),
        ("a: \ud800", "surrogate"),
        ("\t- x", "token"),
    ],
)
def test_what_would_hurt_or_is_no_yaml_is_refused(text: str, said: str) -> None:
    assert any(said in message for message, _, _ in refused(text)), refused(text)


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    assert any("alias" in message for message, _, _ in refused("\n".join(lines)))


def test_characters_that_may_not_stand_have_their_line() -> None:
    [(_, line, column)] = refused("a: 1\nb: é\x07")
    assert (line, column) == (2, 5)


def test_numbers_keep_their_value() -> None:
    for number in (1e300, -1.5e-7, 1.0, 2**63 - 1, 0.1 + 0.2, math.pi):
        assert read(yaml_text.write({"n": number})).value == {"n": number}
