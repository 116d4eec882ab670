"""Sections 6.1 to 6.3 of the GraphQL specification (September 2025): requests, operations, selection sets. Both
executors, and what the specification says comes of each case."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLString,
    build_schema,
    get_operation_ast,
    parse,
)

from executor import Outline, Plans, Unsupported
from tests.executor.speaking import Json, both, query, returns

pytestmark = pytest.mark.anyio


# 6.1 Executing requests


async def test_the_operation_is_chosen_by_name() -> None:
    schema = query(a=GraphQLField(GraphQLInt, resolve=returns(1)), b=GraphQLField(GraphQLInt, resolve=returns(2)))
    assert await both(schema, "query A { a } query B { b }", name="B") == ({"b": 2}, [])


async def test_variables_are_coerced_before_anything_runs() -> None:
    called: list[Any] = []
    schema = query(
        f=GraphQLField(GraphQLInt, {"n": GraphQLArgument(GraphQLInt)}, resolve=lambda *_, n: called.append(n)),
        g=GraphQLField(GraphQLInt, {"m": GraphQLArgument(GraphQLList(GraphQLNonNull(GraphQLInt)))}, resolve=returns(1)),
    )
    text = "query ($n: Int!, $m: [Int!]) { f(n: $n) g(m: $m) }"
    data, errors = await both(schema, text, {"m": [1, "x"]})
    assert data is None
    assert [error["message"].split(":")[0] for error in errors] == [
        "Variable '$n' has invalid value",
        "Variable '$m' has invalid value at [1]",
    ]
    assert called == []


@pytest.mark.parametrize(
    ("declared", "variables", "expected"),
    [
        ("$v: Int", {}, "{}"),
        ("$v: Int", {"v": None}, "{'n': None}"),
        ("$v: Int", {"v": 3}, "{'n': 3}"),
        ("$v: Int = 7", {}, "{'n': 7}"),
        ("$v: Int = 7", {"v": None}, "{'n': None}"),
        ("$v: Int!", {"v": 2}, "{'n': 2}"),
    ],
)
async def test_absent_null_and_default_variables_are_told_apart(declared: str, variables: Json, expected: str) -> None:
    schema = query(
        f=GraphQLField(GraphQLString, {"n": GraphQLArgument(GraphQLInt)}, resolve=lambda *_, **args: str(args))
    )
    assert await both(schema, f"query ({declared}) {{ f(n: $v) }}", variables) == ({"f": expected}, [])


@pytest.mark.parametrize(("variables", "expected"), [({}, "{'n': 5}"), ({"v": 1}, "{'n': 1}")])
async def test_an_argument_default_stands_in_for_an_absent_variable(variables: Json, expected: str) -> None:
    schema = query(
        f=GraphQLField(
            GraphQLString,
            {"n": GraphQLArgument(GraphQLNonNull(GraphQLInt), default_value=5)},
            resolve=lambda *_, **args: str(args),
        )
    )
    assert await both(schema, "query ($v: Int) { f(n: $v) }", variables) == ({"f": expected}, [])


async def test_null_for_an_argument_that_may_not_be_null_is_that_fields_error() -> None:
    schema = query(
        f=GraphQLField(
            GraphQLString, {"n": GraphQLArgument(GraphQLNonNull(GraphQLInt), default_value=5)}, resolve=returns("f")
        ),
        g=GraphQLField(GraphQLString, resolve=returns("g")),
    )
    data, [error] = await both(schema, "query ($v: Int) { f(n: $v) g }", {"v": None})
    assert data == {"f": None, "g": "g"}
    assert error["path"] == ["f"]


async def test_input_objects_lists_and_enums_in_literals_and_variables() -> None:
    class Shade(Enum):
        LIGHT = 1
        DARK = 2

    shade = GraphQLEnumType("Shade", Shade)
    inner = GraphQLInputObjectType(
        "Inner",
        {
            "shades": GraphQLInputField(GraphQLList(GraphQLList(shade))),
            "size": GraphQLInputField(GraphQLInt, default_value=3, out_name="how_big"),
        },
    )
    schema = query(
        f=GraphQLField(
            GraphQLString,
            {"i": GraphQLArgument(inner, out_name="given"), "s": GraphQLArgument(GraphQLList(shade))},
            resolve=lambda *_, **args: str(args),
        )
    )
    text = """
        query ($s: Shade, $l: [Shade], $i: Inner) {
          a: f(i: {shades: [[LIGHT, $s], DARK]}, s: $l) b: f(i: $i) c: f(s: [$s, LIGHT])
        }
    """
    data, errors = await both(schema, text, {"s": "DARK", "l": "DARK", "i": {"shades": "LIGHT", "size": None}})
    assert errors == []
    assert "how_big': 3" in data["a"]
    assert "how_big': None" in data["b"]
    await both(schema, text, {})
    await both(schema, text, {"s": "PINK"})
    await both(schema, text, {"i": {"no": 1}})


# 6.2 Executing operations


async def test_mutations_are_executed_one_after_the_other_with_all_below_them() -> None:
    happened: list[str] = []

    async def act(_: Any, info: Any) -> Any:
        happened.append(f"{info.path.key} begins")
        await asyncio.sleep(0.01)
        happened.append(f"{info.path.key} ends")
        return {"name": info.path.key}

    async def name(parent: Any, info: Any) -> str:
        await asyncio.sleep(0.01)
        happened.append(f"{parent['name']} read")
        return str(parent["name"])

    thing = GraphQLObjectType("Thing", {"name": GraphQLField(GraphQLString, resolve=name)})
    schema = GraphQLSchema(
        GraphQLObjectType("Query", {"q": GraphQLField(GraphQLInt)}),
        GraphQLObjectType("Mutation", {"act": GraphQLField(thing, resolve=act)}),
    )
    text = "mutation { a: act { name } b: act { name } }"
    document = parse(text)
    operation = get_operation_ast(document)
    assert operation is not None
    found = await Plans(schema, Outline()).execute(text, document, operation, {}, None)
    assert found.data == {"a": {"name": "a"}, "b": {"name": "b"}}
    assert happened == ["a begins", "a ends", "a read", "b begins", "b ends", "b read"]


async def test_a_null_at_the_root_ends_a_mutation() -> None:
    happened: list[str] = []

    def act(_: Any, info: Any, fail: bool) -> Any:
        happened.append(info.path.key)
        if fail:
            raise ValueError("broken")
        return 1

    required = GraphQLField(
        GraphQLNonNull(GraphQLInt), {"fail": GraphQLArgument(GraphQLNonNull(GraphQLInt))}, resolve=act
    )
    schema = GraphQLSchema(
        GraphQLObjectType("Query", {"q": GraphQLField(GraphQLInt)}), GraphQLObjectType("Mutation", {"act": required})
    )
    data, errors = await both(schema, "mutation { a: act(fail: 0) b: act(fail: 1) c: act(fail: 0) }")
    assert data is None
    assert [error["path"] for error in errors] == [["b"]]
    assert happened == ["a", "b"] * 4


async def test_queries_ask_at_once() -> None:
    waiting = asyncio.Event()

    async def first(*_: Any) -> str:
        await asyncio.wait_for(waiting.wait(), 5)
        return "first"

    async def second(*_: Any) -> str:
        waiting.set()
        return "second"

    schema = query(a=GraphQLField(GraphQLString, resolve=first), b=GraphQLField(GraphQLString, resolve=second))
    assert await both(schema, "{ a b }") == ({"a": "first", "b": "second"}, [])


# 6.3 Selection sets


async def test_fields_are_merged_and_kept_in_order() -> None:
    schema = build_schema("type Query { t: T } type T { a: Int b: Int c: Int t: T }")
    root = {"t": {"a": 1, "b": 2, "c": 3, "t": {"a": 4, "b": 5}}}
    data, _ = await both(
        schema,
        "{ t { b ...F } t { c t { b } } } fragment F on T { a x: a t { a ...G } } fragment G on T { z: b }",
        root=root,
    )
    assert repr(data) == repr({"t": {"b": 2, "a": 1, "x": 1, "t": {"a": 4, "z": 5, "b": 5}, "c": 3}})


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("include", [True, False])
async def test_skip_and_include(skip: bool, include: bool) -> None:
    schema = build_schema("type Query { a: Int b: Int c: Int t: Query }")
    root = {"a": 1, "b": 2, "c": 3, "t": {"a": 4}}
    text = """
        query ($s: Boolean!, $i: Boolean!) {
          a @skip(if: $s) @include(if: $i)
          ... @include(if: $i) { b }
          ...F @skip(if: $s)
          t { a @skip(if: $s) }
          t @include(if: $i) { z: a }
        }
        fragment F on Query { c }
    """
    data, errors = await both(schema, text, {"s": skip, "i": include}, root=root)
    assert errors == []
    assert ("a" in data, "b" in data, "c" in data) == (not skip and include, include, not skip)
    assert data["t"] == ({} if skip else {"a": 4}) | ({"z": 4} if include else {})


async def test_a_condition_that_is_null_is_left_to_graphql_core() -> None:
    schema = build_schema("type Query { a: Int }")
    document = parse("query ($s: Boolean = true) { a @skip(if: $s) }")
    operation = get_operation_ast(document)
    assert operation is not None
    with pytest.raises(Unsupported) as refused:
        await Plans(schema, Outline()).execute("x", document, operation, {"s": None}, None)
    assert refused.value.reason == "condition_null"


async def test_introspection_is_left_to_graphql_core() -> None:
    schema = build_schema("type Query { a: Int }")
    document = parse("{ ...F } fragment F on Query { a __schema { queryType { name } } }")
    operation = get_operation_ast(document)
    assert operation is not None
    with pytest.raises(Unsupported, match="introspection"):
        await Plans(schema, Outline()).execute("x", document, operation, {}, None)
