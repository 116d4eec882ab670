"""Section 6.4 of the GraphQL specification (September 2025): fields, values and errors. Both executors, and what
the specification says comes of each case."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLInt,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    GraphQLUnionType,
    build_schema,
)

from executor import Outline, Read
from tests.executor.speaking import Json, both, fails, later, query, returns

pytestmark = pytest.mark.anyio


# 6.4 Fields


@dataclass
class Cat:
    name: str | None = "Tom"
    lives: int = 9
    friends: list[Any] = field(default_factory=list)


@dataclass
class Dog:
    name: str | None = "Rex"
    barks: bool = True
    friends: list[Any] = field(default_factory=list)


def pets(**more: Any) -> GraphQLSchema:
    pet = GraphQLInterfaceType(
        "Pet",
        lambda: {
            "name": GraphQLField(GraphQLNonNull(GraphQLString)),
            "friends": GraphQLField(GraphQLList(GraphQLNonNull(pet))),
        },
        **more,
    )

    def of(class_: type) -> Any:
        return lambda value, info: isinstance(value, class_)

    shared = {
        "name": GraphQLField(GraphQLNonNull(GraphQLString)),
        "friends": GraphQLField(GraphQLList(GraphQLNonNull(pet))),
    }
    cat = GraphQLObjectType("Cat", {**shared, "lives": GraphQLField(GraphQLInt)}, interfaces=[pet], is_type_of=of(Cat))
    dog = GraphQLObjectType(
        "Dog", {**shared, "barks": GraphQLField(GraphQLString)}, interfaces=[pet], is_type_of=of(Dog)
    )
    any_pet = GraphQLUnionType("AnyPet", [cat, dog])
    return GraphQLSchema(
        GraphQLObjectType(
            "Query",
            {
                "pet": GraphQLField(pet),
                "pets": GraphQLField(GraphQLList(pet)),
                "any": GraphQLField(GraphQLList(any_pet)),
                "cat": GraphQLField(cat),
            },
        ),
        types=[cat, dog],
    )


PETS = """{
  pets { __typename name ... on Cat { lives } ...D friends { name ... on Dog { barks } } }
  any { __typename ... on Pet { name } ... on Cat { lives } }
} fragment D on Dog { barks }"""


async def test_interfaces_and_unions() -> None:
    root = {"pets": [Cat(friends=[Dog(), Cat()]), Dog(), None, Cat("Kit")], "any": [Dog(), Cat()]}
    data, errors = await both(pets(), PETS, root=root)
    assert errors == []
    assert [pet and pet["__typename"] for pet in data["pets"]] == ["Cat", "Dog", None, "Cat"]
    assert data["pets"][0]["friends"] == [{"name": "Rex", "barks": "true"}, {"name": "Tom"}]


@pytest.mark.parametrize(
    "named",
    [None, "Dragon", "Query", "Pet", 7, "Cat"],
    ids=["none", "unknown", "impossible", "abstract", "no name", "wrong"],
)
async def test_a_type_that_cannot_be_is_an_error(named: Any) -> None:
    schema = pets(resolve_type=lambda value, info, type_: named)
    data, errors = await both(schema, "{ pet { name } pets { name } }", root={"pet": Dog(), "pets": [Dog()]})
    assert data == {"pet": None, "pets": [None]}
    assert [error["path"] for error in errors] == [["pet"], ["pets", 0]]


async def test_a_value_of_another_type_is_an_error() -> None:
    data, [error] = await both(pets(), "{ cat { name } }", root={"cat": Dog()})
    assert data == {"cat": None}
    assert error["message"].startswith("Expected value of type 'Cat' but got")


async def test_errors_within_objects_of_an_interface() -> None:
    root = {
        "pets": [Cat(name=None), Dog(friends=[Cat(), Dog(name=None)]), ValueError("gone"), 5],
        "any": [Cat(name=None)],
    }
    data, errors = await both(pets(), PETS, root=root)
    assert [pet and pet["friends"] for pet in data["pets"]] == [None, None, None, None]
    assert {tuple(error["path"]) for error in errors} == {
        ("pets", 0, "name"), ("pets", 1, "friends", 1, "name"), ("pets", 2), ("pets", 3), ("any", 0, "name"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "type_", ["[Int]", "[Int!]", "[Int]!", "[Int!]!", "[[Int!]]", "[[Int]!]!", "[[Int!]!]!", "Int!"]
)
@pytest.mark.parametrize(
    "value",
    [
        None, [], [1, 2], [1, None], [None], [[1], [2, None]], [[1, "x"], None], [[None]], [ValueError("item")], "text",
        (1, 2), {"a": 1}, range(3), 7, ValueError("all"),
    ],
    ids=repr,
)  # fmt: skip
async def test_lists_and_nulls(type_: str, value: Any) -> None:
    """Section 6.4.4: every nesting of lists and non-null types, with every kind of value."""
    schema = build_schema(f"type Query {{ t: T other: Int }} type T {{ f: {type_} g: Int }}")
    for wrap in (returns, later_returns):
        schema.type_map["T"].fields["f"].resolve = wrap(value)  # type: ignore[attr-defined]
        await both(schema, "{ t { g f } other }", root={"t": {"g": 1}, "other": 2})


def later_returns(value: Any) -> Callable[..., Any]:
    return lambda *_: later(value)


@pytest.mark.parametrize("type_", ["[T]", "[T!]", "[T]!", "[T!]!", "[[T!]]", "[[T]!]", "T!", "T"])
@pytest.mark.parametrize("inner", ["Int", "Int!"])
async def test_nulls_spread_through_lists_of_objects(type_: str, inner: str) -> None:
    schema = build_schema(
        f"type Query {{ q: Q other: Int }} type Q {{ ts: {type_} n: Int }} type T {{ a: {inner} t: T b: Int! }}"
    )
    good: Json = {"a": 1, "b": 1, "t": {"a": 2, "b": 2}}
    for bad in (
        {"a": None, "b": 1},
        {"a": 1, "b": 1, "t": {"a": "x", "b": 1}},
        {"a": 1},
        None,
        ValueError("gone"),
        good,
    ):
        one: Any = {"[[": [[good, bad], [good], None], "[T": [good, bad, good]}.get(type_[:2], bad)
        data, _ = await both(
            schema, "{ q { n ts { a b t { a b } } } other }", root={"q": {"ts": one, "n": 3}, "other": 4}
        )
        assert data["other"] == 4


async def test_a_null_that_spreads_to_the_root_is_all_of_the_data() -> None:
    schema = build_schema("type Query { a: A! b: Int } type A { a: A! n: Int! }")
    data, [error] = await both(schema, "{ b a { a { a { n } } } }", root={"a": {"a": {"a": {"n": None}}}, "b": 1})
    assert data is None
    assert error["path"] == ["a", "a", "a", "n"]
    assert error["locations"] == [{"line": 1, "column": 17}]


async def test_partial_errors_have_path_and_locations() -> None:
    thing = GraphQLObjectType(
        "Thing", {"ok": GraphQLField(GraphQLInt, resolve=returns(1)), "no": GraphQLField(GraphQLInt, resolve=fails)}
    )
    schema = query(things=GraphQLField(GraphQLList(thing), resolve=returns([1, 2])))
    data, errors = await both(schema, "{\n  x: things {\n    ok\n    n: no\n  }\n  x: things { n: no }\n}")
    assert data == {"x": [{"ok": 1, "n": None}] * 2}
    assert errors[1] == {
        "message": "broken", "path": ["x", 1, "n"], "locations": [{"line": 4, "column": 5}, {"line": 6, "column": 15}],
    }  # fmt: skip


@pytest.mark.parametrize("worth", [0, 64])
async def test_scalars_and_enums_of_our_own(worth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.fields.WORTH_GENERATING", worth)

    class Mood(StrEnum):
        GOOD = "good"
        BAD = "bad"

    def serialize(value: Any) -> Any:
        if value == "raise":
            raise GraphQLError("No such moment.")
        return None if value == "null" else f"<{value}>"

    moment = GraphQLScalarType("Moment", serialize=serialize, parse_value=lambda value: f"parsed {value}")
    mood = GraphQLEnumType("Mood", Mood)
    fields = {"moment": GraphQLField(moment), "mood": GraphQLField(mood), "moods": GraphQLField(GraphQLList(mood))}
    thing = GraphQLObjectType("Thing", fields)
    schema = query(
        things=GraphQLField(GraphQLList(thing)),
        echo=GraphQLField(GraphQLString, {"at": GraphQLArgument(moment)}, resolve=lambda *_, at: at),
    )
    values: list[Json] = [
        {"moment": "now", "mood": Mood.GOOD, "moods": ["good", Mood.BAD]},
        {"moment": "raise", "mood": "bad", "moods": ["ugly", None]},
        {"moment": "null", "mood": "ugly", "moods": ["good", ["bad"]]},
        {"moment": None, "mood": ["bad"], "moods": None},
    ]
    data, errors = await both(
        schema, 'query ($v: Moment) { things { moment mood moods } echo(at: $v) e: echo(at: "x") }',
        {"v": 5}, root={"things": values},
    )  # fmt: skip
    assert data["echo"] == "parsed 5"
    assert data["things"][0]["moment"] == "<now>"
    assert len(errors) > 4
    outline = Outline(
        source=lambda f: (
            Read(next(n for n, d in fields.items() if d is f)) if f in fields.values() else Outline().source(f)
        ),
        rows=(dict,),
    )
    assert (await both(schema, "{ things { moment mood moods } }", root={"things": values}, outline=outline))[1]
    fits: list[Json] = [{"moment": None, "mood": None, "moods": None}, values[0]]
    data, errors = await both(schema, "{ things { mood moment moods } }", root={"things": fits}, outline=outline)
    assert data["things"] == [
        {"mood": None, "moment": None, "moods": None},
        {"mood": "GOOD", "moment": "<now>", "moods": ["GOOD", "BAD"]},
    ]


async def test_awaitables_iterators_and_async_iterators_in_results() -> None:
    async def many() -> AsyncIterator[Any]:
        for number in range(3):
            yield number
        yield "no number"

    async def breaks() -> AsyncIterator[Any]:
        yield 1
        raise ValueError("broken")

    numbers = GraphQLList(GraphQLInt)
    schema = query(
        awaited=GraphQLField(numbers, resolve=lambda *_: later([later(1), 2, fails_later()])),
        nested=GraphQLField(GraphQLList(numbers), resolve=lambda *_: [later([1]), [later(2)]]),
        iterated=GraphQLField(numbers, resolve=lambda *_: (number for number in (1, 2))),
        many=GraphQLField(numbers, resolve=lambda *_: many()),
        breaks=GraphQLField(numbers, resolve=lambda *_: breaks()),
    )
    data, errors = await both(schema, "{ awaited nested iterated many breaks }")
    assert data == {
        "awaited": [1, 2, None],
        "nested": [[1], [2]],
        "iterated": [1, 2],
        "many": [0, 1, 2, None],
        "breaks": None,
    }
    assert {tuple(error["path"]) for error in errors} == {("awaited", 2), ("many", 3), ("breaks",)}


async def test_a_tuple_is_an_object_where_the_schema_says_so() -> None:
    class Pair(NamedTuple):
        first: Any
        second: int

    schema = build_schema("type Query { pair: Pair pairs: [Pair] } type Pair { first: Int second: Int! }")
    schema.type_map["Pair"].fields["first"].resolve = lambda pair, _: pair.first  # type: ignore[attr-defined]
    fields = schema.type_map["Query"].fields  # type: ignore[attr-defined]
    for make in (lambda value: lambda *_: value, later_returns):
        fields["pair"].resolve = lambda *_, make=make: make(Pair(later(1), 2))(None)
        fields["pairs"].resolve = lambda *_, make=make: make([Pair(later(1), 2), Pair(None, 3)])(None)
        assert await both(schema, "{ pair { first second } pairs { first second } }") == (
            {"pair": {"first": 1, "second": 2}, "pairs": [{"first": 1, "second": 2}, {"first": None, "second": 3}]},
            [],
        )


async def fails_later() -> Any:
    await asyncio.sleep(0)
    raise ValueError("broken later")


async def test_resolvers_are_told_where_they_are() -> None:
    seen: list[Any] = []

    def look(parent: Any, info: Any) -> int:
        seen.append((info.path.as_list(), info.field_name, str(info.return_type), str(info.parent_type), parent,
                     len(info.field_nodes), info.variable_values.coerced, info.operation.name.value))  # fmt: skip
        return 1

    thing = GraphQLObjectType("Thing", {"look": GraphQLField(GraphQLInt, resolve=look)})
    schema = query(things=GraphQLField(GraphQLList(GraphQLList(thing)), resolve=returns([["a", "b"], [], ["c"]])))
    await both(
        schema, "query N($v: Boolean!) { t: things { look } t: things { look @skip(if: $v) look } }", {"v": True}
    )
    assert seen[:3] == seen[3:6]
    assert [row[0] for row in seen[:3]] == [["t", 0, 0, "look"], ["t", 0, 1, "look"], ["t", 2, 0, "look"]]
