"""The execution chapter of the GraphQL specification (September 2025, section 6), on small schemas: both executors,
and what the specification says comes of each case."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from inspect import isawaitable
from typing import Any, NamedTuple

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
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
    execute,
    get_operation_ast,
    parse,
    validate,
)

from executor import Batch, Call, Outline, Plans, Read, Source, Unsupported
from tests.executor.comparing import differences

pytestmark = pytest.mark.anyio
Json = dict[str, Any]


async def both(
    schema: GraphQLSchema,
    text: str,
    variables: Json | None = None,
    *,
    root: Any = None,
    outline: Outline | None = None,
    name: str | None = None,
) -> tuple[Any, list[Json]]:
    """Data and formatted errors, which both executors agree on. Twice, so that a plan is also used again."""
    document = parse(text)
    assert not validate(schema, document)
    operation = get_operation_ast(document, name)
    assert operation is not None
    plans = Plans(schema, outline or Outline())
    for _ in range(2):
        expected = execute(schema, document, root, None, variables, name)
        reference = await expected if isawaitable(expected) else expected
        found = await plans.execute(text, document, operation, variables or {}, None, root)
        assert not differences(reference, found)
    return found.data, [dict(error.formatted) for error in found.errors or []]


def query(**fields: GraphQLField) -> GraphQLSchema:
    return GraphQLSchema(GraphQLObjectType("Query", fields))


def returns(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def fails(*_: Any, **__: Any) -> Any:
    raise ValueError("broken")


async def later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


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


# Batches


@dataclass
class Library:
    """A schema of parents and children whose nested fields are batches, and how they were called."""

    calls: list[tuple[str, int, Json]] = field(default_factory=list)
    answer: Callable[[Sequence[Any]], Any] = lambda parents: [parent.get("pages", []) for parent in parents]

    def parts(self) -> tuple[GraphQLSchema, Outline]:
        schema = build_schema(
            "type Query { books: [Book!]! } type Book { title: String! pages(first: Int = 3, from: Int): [Page!] "
            "upper: String count: Int! } type Page { n: Int! book: Book! }"
        )
        books = schema.type_map["Book"].fields  # type: ignore[attr-defined]
        page = schema.type_map["Page"].fields  # type: ignore[attr-defined]
        sources: list[tuple[GraphQLField, Source]] = [
            (books["title"], Read("title")),
            (books["pages"], Batch(self.batch, dict)),
            (books["upper"], Call(lambda book: book["title"].upper())),
            (books["count"], Batch(self.counts, dict)),
            (page["n"], Read("n", lambda n: n + 1)),
            (page["book"], Batch(self.parents, dict)),
        ]
        return schema, Outline(
            source=lambda f: next((source for known, source in sources if known is f), Outline().source(f)),
            rows=(dict,),
        )

    async def batch(self, context: Any, parents: Sequence[Any], args: Json) -> Any:
        self.calls.append(("pages", len(parents), args))
        return self.answer(parents)

    async def counts(self, context: Any, parents: Sequence[Any], args: Json) -> Any:
        return [len(parent.get("pages", [])) or None for parent in parents]

    async def parents(self, context: Any, parents: Sequence[Any], args: Json) -> Any:
        self.calls.append(("book", len(parents), args))
        return [parent["book"] for parent in parents]

    async def ask(self, text: str, root: Any, variables: Json | None = None) -> Any:
        schema, outline = self.parts()
        document = parse(text)
        assert not validate(schema, document)
        operation = get_operation_ast(document)
        assert operation is not None
        return await Plans(schema, outline).execute(text, document, operation, variables or {}, None, root)


def shelf() -> Json:
    books: list[Json] = [{"title": f"t{number}"} for number in range(100)]
    for book in books:
        book["pages"] = [{"n": number, "book": book} for number in range(2)]
    return {"books": books}


async def test_a_batch_is_one_call_for_all_parents_of_a_level() -> None:
    library = Library()
    found = await library.ask(
        "query ($f: Int) { books { upper title pages(first: $f) { n book { title count } } p: pages(from: 1) { n } } }",
        shelf(),
    )
    assert found.errors is None
    assert found.data["books"][7] == {
        "upper": "T7", "title": "t7",
        "pages": [{"n": 1, "book": {"title": "t7", "count": 2}}, {"n": 2, "book": {"title": "t7", "count": 2}}],
        "p": [{"n": 1}, {"n": 2}],
    }  # fmt: skip
    assert sorted(library.calls, key=str) == [
        ("book", 200, {}), ("pages", 100, {"first": 3, "from": 1}), ("pages", 100, {"first": 3}),
    ]  # fmt: skip


async def test_the_same_parent_is_asked_for_once() -> None:
    library, root = Library(), shelf()
    root["books"] = [root["books"][0]] * 5
    found = await library.ask("{ books { pages { n } } }", root)
    assert found.data == {"books": [{"pages": [{"n": 1}, {"n": 2}]}] * 5}
    assert library.calls == [("pages", 1, {"first": 3})]


async def test_an_error_among_a_batchs_results_is_that_parents() -> None:
    library = Library(answer=lambda parents: [ValueError("torn") if n == 3 else [] for n, _ in enumerate(parents)])
    found = await library.ask("{ books { title pages { n } } }", shelf())
    assert [error.path for error in found.errors] == [["books", 3, "pages"]]
    assert found.data["books"][3] == {"title": "t3", "pages": None}
    assert found.data["books"][4] == {"title": "t4", "pages": []}


@pytest.mark.parametrize("answer", [fails, lambda parents: []], ids=["raises", "too few"])
async def test_a_batch_that_fails_is_an_error_of_every_parent(answer: Any) -> None:
    found = await Library(answer=answer).ask("{ books { title pages { n } } }", shelf())
    assert len(found.errors) == 100
    assert found.data["books"][0] == {"title": "t0", "pages": None}


async def test_rows_that_need_care_do_not_disturb_others() -> None:
    root = shelf()
    root["books"][50]["pages"][1]["n"] = "x"
    found = await Library().ask("{ books { pages { n } } }", root)
    assert [error.path for error in found.errors] == [["books", 50, "pages", 1, "n"]]
    assert found.data["books"][50] == {"pages": None}
    assert found.data["books"][51] == {"pages": [{"n": 1}, {"n": 2}]}


@pytest.mark.parametrize("worth", [0, 64])
async def test_an_exception_is_never_a_value(worth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.fields.WORTH_GENERATING", worth)
    anything = GraphQLScalarType("Anything", serialize=lambda value: value)
    names = ("called", "shown", "read")
    thing = GraphQLObjectType("Thing", {name: GraphQLField(anything, resolve=fails) for name in names})
    schema = query(things=GraphQLField(GraphQLList(thing)))

    @dataclass
    class Row:
        read: Any = field(default_factory=lambda: ValueError("broken"))

    sources: list[Source] = [
        Call(lambda row: ValueError("broken")),
        Read("read", lambda value: ValueError("broken")),
        Read("read"),
    ]
    known = dict(zip(names, sources, strict=True))
    outline = Outline(source=lambda f: next((known[n] for n in names if thing.fields[n] is f), Outline().source(f)))
    data, errors = await both(schema, "{ things { called shown read } }", root={"things": [Row()]}, outline=outline)
    assert data == {"things": [dict.fromkeys(names)]}
    assert len(errors) == 3


async def test_a_client_that_goes_away_ends_the_calls() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def endless(*_: Any) -> Any:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    schema = query(a=GraphQLField(GraphQLInt, resolve=endless), b=GraphQLField(GraphQLInt, resolve=endless))
    document = parse("{ a b }")
    operation = get_operation_ast(document)
    assert operation is not None
    task = asyncio.create_task(Plans(schema, Outline()).execute("{ a b }", document, operation, {}, None))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


# The cache


async def test_plans_are_bounded_by_what_they_weigh() -> None:
    schema = build_schema("type Query { a: Int b: Int }")
    plans = Plans(schema, Outline(), largest_weight=500)
    for number in range(500):
        text = f"{{ a{number}: a b }}"
        document = parse(text)
        operation = get_operation_ast(document)
        assert operation is not None
        assert (await plans.execute(text, document, operation, {}, None, {"a": 1, "b": 2})).data == {
            f"a{number}": 1,
            "b": 2,
        }
        assert plans.weight <= 500
