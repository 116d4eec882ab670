"""Which schemas the parameters of templates may have, and which values fit them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from core.errors import BadInput, TooLarge
from services.templates.parameters import check_schema, check_values

SCHEMA: dict[str, Any] = {
    "type": "object",
    "x-quarterdeck-order": ["repository", "depth", "ratio", "strict", "level", "tags", "token", "since"],
    "properties": {
        "repository": {"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[a-z/]+$"},
        "depth": {"type": "integer", "minimum": 1, "maximum": 50, "default": 10},
        "ratio": {"type": "number", "multipleOf": 0.1},
        "strict": {"type": "boolean", "default": False},
        "level": {"oneOf": [{"const": "low", "title": "Low"}, {"const": "high", "title": "High"}]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "uniqueItems": True, "maxItems": 3},
        "token": {"type": "string", "x-quarterdeck-secret": True},
        "since": {"type": "string", "format": "date"},
    },
    "required": ["repository", "level"],
    "$defs": {"tag": {"type": "string", "enum": ["a", "b", "c", "d"]}},
}


def problems_of(schema: Any) -> dict[str, str]:
    with pytest.raises(BadInput) as raised:
        check_schema(schema, "spec.parameters")
    fields = raised.value.details.get("fields")
    return (
        {each["field"]: each["message"] for each in fields} if fields else {raised.value.field or "": str(raised.value)}
    )


def problems_with(values: Any, schema: dict[str, Any] = SCHEMA) -> dict[str, str]:
    with pytest.raises(BadInput) as raised:
        check_values(schema, values, "parameters")
    return {each["field"]: each["message"] for each in raised.value.details["fields"]}


def one(parameter: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": parameter}}


def test_a_schema_of_all_kinds_of_parameters_is_taken() -> None:
    check_schema(SCHEMA, "spec.parameters")
    check_schema({}, "spec.parameters")


def test_values_that_fit_come_back_with_defaults_in_the_order_of_the_schema() -> None:
    values = {"level": "low", "repository": "a/b", "depth": 3.0, "tags": ["b", "a"], "token": "GITHUB_TOKEN"}
    found = check_values(SCHEMA, values, "parameters")
    assert list(found.items()) == [
        ("repository", "a/b"),
        ("depth", 3),
        ("strict", False),
        ("level", "low"),
        ("tags", ["b", "a"]),
        ("token", "GITHUB_TOKEN"),
    ]
    assert isinstance(found["depth"], int)


def test_all_that_is_wrong_with_values_is_told_at_once_with_paths() -> None:
    assert problems_with(
        {
            "repository": "NOT THIS",
            "depth": 51,
            "ratio": 0.25,
            "strict": "yes",
            "tags": ["a", "z", 1],
            "token": "not a name",
            "since": "2026-02-30",
            "other": 1,
        }
    ) == {
        "parameters.other": "There is no such parameter; there are repository, depth, ratio, strict, level, tags, "
        "token, since.",
        "parameters.repository": "It must fit the pattern ^[a-z/]+$",
        "parameters.depth": "It must be at most 50.",
        "parameters.ratio": "It must be a multiple of 0.1.",
        "parameters.strict": "It must be a boolean.",
        "parameters.level": "It is required.",
        "parameters.tags.1": 'It must be one of ["a","b","c","d"].',
        "parameters.tags.2": 'It must be one of ["a","b","c","d"].',
        "parameters.since": "It must be a date.",
        "parameters.token": "It is the name of an environment variable. A variable's name has letters, digits and _, "
        "up to 200, and does not begin with a digit.",
    }


def test_a_template_without_parameters_takes_none() -> None:
    assert check_values({}, {}, "parameters") == {}
    assert problems_with({"x": 1}, {}) == {"parameters.x": "This template has no parameters."}


def test_a_value_is_never_repeated_in_a_problem() -> None:
    said = str(problems_with({"repository": "HUNTER2", "level": "HUNTER2", "depth": "HUNTER2"}))
    assert "HUNTER2" not in said


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"type": "array"}, "type"),
        ({"type": "object", "additionalProperties": True}, "additionalProperties"),
        ({"type": "object", "patternProperties": {}}, "patternProperties"),
        ({"type": "object", "required": ["y"]}, "required.0"),
        ({"type": "object", "x-quarterdeck-order": ["y"]}, "x-quarterdeck-order.0"),
        ({"type": "object", "x-quarterdeck-order": "y"}, "x-quarterdeck-order"),
        ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "$schema"),
        ({"type": "object", "properties": {"not a name": {"type": "string"}}}, "properties.not a name"),
        ({"type": "object", "properties": []}, "properties"),
        (one(True), "properties.x"),
        (one({}), "properties.x.type"),
        (one({"type": ["string", "null"]}), "properties.x.type"),
        (one({"type": "object"}), "properties.x.type"),
        (one({"type": "text"}), "properties.x.type"),
        (one({"type": "string", "minLength": -1}), "properties.x.minLength"),
        (one({"type": "string", "minimum": 1}), "properties.x.minimum"),
        (one({"type": "string", "default": 1}), "properties.x.default"),
        (one({"type": "string", "pattern": "("}), "properties.x.pattern"),
        (one({"type": "string", "pattern": "(?=a)"}), "properties.x.pattern"),
        (one({"type": "string", "pattern": "a" * 1001}), "properties.x.pattern"),
        (one({"type": "string", "pattern": "((a{1000}){1000}){1000}"}), "properties.x.pattern"),
        (one({"type": "string", "format": "iri"}), "properties.x.format"),
        (one({"type": "string", "format": "date", "default": "today"}), "properties.x.default"),
        (one({"enum": []}), "properties.x.type"),
        (one({"enum": [{"a": 1}]}), "properties.x.type"),
        (one({"type": "string", "enum": [1]}), "properties.x"),
        (one({"oneOf": [{"type": "string"}]}), "properties.x.type"),
        (one({"oneOf": [{"const": 1}, {"const": 1}]}), "properties.x.oneOf.1"),
        (one({"type": "array"}), "properties.x.items"),
        (one({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}), "properties.x.items.type"),
        (one({"type": "integer", "x-quarterdeck-secret": True}), "properties.x.x-quarterdeck-secret"),
        (one({"type": "string", "x-quarterdeck-secret": "yes"}), "properties.x.x-quarterdeck-secret"),
        (one({"type": "string", "x-quarterdeck-secret": True, "default": "PATH"}), "properties.x.default"),
        (one({"$ref": "https://example.org/schema.json"}), "properties.x.$ref"),
        (one({"$ref": "file:///etc/passwd"}), "properties.x.$ref"),
        (one({"$ref": "#"}), "properties.x.$ref"),
        (one({"$ref": "#/$defs/none"}), "properties.x.$ref"),
        (one({"$dynamicRef": "#x"}), "properties.x.$dynamicRef"),
        (one({"type": "string", "$id": "https://example.org/"}), "properties.x.$id"),
    ],
)
def test_what_is_no_schema_of_parameters_is_refused_with_its_place(schema: Any, where: str) -> None:
    assert f"spec.parameters.{where}" in problems_of(schema)


def test_references_in_a_circle_are_refused() -> None:
    defs = {
        "a": {"$ref": "#/$defs/b"},
        "b": {"$ref": "#/$defs/a"},
        "c": {"type": "array", "items": {"$ref": "#/$defs/c"}},
    }
    found = problems_of({"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": defs})
    assert "circle" in found["spec.parameters.properties.x.$ref"]
    assert "circle" in found["spec.parameters.$defs.c.items.$ref"]


def test_schemas_are_bounded_in_size_depth_and_number() -> None:
    with pytest.raises(TooLarge):
        check_schema(one({"type": "string", "description": "x" * 70_000}), "spec.parameters")
    nested: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        nested = {"type": "array", "items": nested}
    assert "levels" in problems_of(one(nested))["spec.parameters"]
    many = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(101)}}
    assert "at most 100" in problems_of(many)["spec.parameters.properties"]


def test_values_are_bounded_and_storable() -> None:
    with pytest.raises(TooLarge):
        check_values(one({"type": "string"}), {"x": "x" * 300_000}, "parameters")
    for value in ("\0", "\ud800", float("nan"), 2**70):
        with pytest.raises(BadInput):
            check_values(one({"type": "string"}), {"x": value}, "parameters")
    found = problems_with({"x": [1] * 1001}, one({"type": "array", "items": {"type": "integer"}}))
    assert found == {"parameters.x": "It has at most 1000 items."}


def test_patterns_take_no_longer_the_worse_they_are() -> None:
    schema = one({"type": "string", "pattern": "^(a+)+$"})
    check_schema(schema, "spec.parameters")
    began = time.perf_counter()
    assert "parameters.x" in problems_with({"x": "a" * 50_000 + "!"}, schema)
    assert time.perf_counter() - began < 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "properties",
                        "x",
                        "$ref",
                        "enum",
                        "items",
                        "const",
                        "oneOf",
                        "pattern",
                        "required",
                        "$defs",
                        "default",
                    ]
                ),
                inner,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_is_given_as_a_schema_is_taken_or_refused(given_: Any) -> None:
    try:
        check_schema({"type": "object", "properties": {"x": given_}, "$defs": {"x": given_}}, "spec.parameters")
    except (BadInput, TooLarge):
        return
    try:
        check_values({"type": "object", "properties": {"x": given_}, "$defs": {"x": given_}}, {"x": 1}, "parameters")
    except BadInput:
        pass


PLAIN = one({"type": "string", "minLength": 2, "pattern": "^[a-c]*$", "enum": ["a", "ab", "abc", "abd"]})
NUMBERS = {
    "type": "object",
    "properties": {
        "x": {"type": "integer", "minimum": -3, "exclusiveMaximum": 4, "multipleOf": 2},
        "y": {"type": "array", "items": {"type": "number"}, "uniqueItems": True, "minItems": 1},
    },
    "required": ["x"],
    "additionalProperties": False,
}
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from(["a", "ab", "abd"])
)


@given(st.dictionaries(st.sampled_from(["x", "y", "z"]), SCALARS | st.lists(SCALARS, max_size=4)))
def test_values_fit_exactly_where_the_library_says_so(values: dict[str, Any]) -> None:
    for schema in (PLAIN | {"additionalProperties": False}, NUMBERS):
        try:
            check_values(schema, values, "parameters")
            fits = True
        except BadInput:
            fits = False
        assert fits is Draft202012Validator(schema).is_valid(values)
