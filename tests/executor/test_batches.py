"""What plans add to the specification: batches for all parents of a level, and a bounded store of plans."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from graphql import (
    GraphQLField,
    GraphQLInt,
    GraphQLList,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    build_schema,
    get_operation_ast,
    parse,
    validate,
)

from executor import Batch, Call, Outline, Plans, Read, Source
from tests.executor.speaking import Json, both, fails, query

pytestmark = pytest.mark.anyio


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
