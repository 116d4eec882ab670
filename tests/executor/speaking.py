"""What the tests of single cases share: a document through both executors, and small resolvers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from graphql import (
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    execute,
    get_operation_ast,
    parse,
    validate,
)

from executor import Outline, Plans
from tests.executor.comparing import differences

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
