"""Running operations as every door does: a failure that nobody foresaw is said, and a mutation runs to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from graphql import GraphQLError, OperationType

from schema.context import Context
from schema.errors import formatted
from schema.execution import Body, Graph, Refused, Request

# TCP takes a little while it is not read; after this long without progress the client is taken for stuck.
SEND_SECONDS = 15.0

# The event loop holds tasks only weakly.
_mutations: set[asyncio.Task[Body]] = set()


async def results(graph: Graph, request: Request, context: Context) -> AsyncGenerator[Body, None]:
    """The responses to an operation, as `Graph.stream` gives them; raises Refused, whatever goes wrong.

    A mutation that has begun runs to its end, also where its client does not wait for it.
    """
    try:
        if graph.operation(request).operation is OperationType.MUTATION:
            task = asyncio.create_task(_execute(graph, request, context))
            _mutations.add(task)
            task.add_done_callback(_ended)
            yield await asyncio.shield(task)
            return
        async with aclosing(graph.stream(request, context)) as found:
            async for body in found:
                yield body
    except Refused:
        raise
    except Exception as error:
        raise Refused(failure(error)) from None


def failure(error: Exception) -> Body:
    """The response where something failed that no field can be blamed for. Its reason is in the log."""
    return {"errors": formatted([GraphQLError(str(error), original_error=error)])}


def as_json(value: dict[str, Any]) -> bytes:
    """Raises TypeError for what JSON cannot hold, or nobody could read: over 254 levels, or a number over 64 bits."""
    return orjson.dumps(value, default=str)


async def _execute(graph: Graph, request: Request, context: Context) -> Body:
    try:
        return await graph.execute(request, context)
    except Refused:
        raise
    except Exception as error:
        raise Refused(failure(error)) from None


def _ended(task: asyncio.Task[Body]) -> None:
    _mutations.discard(task)
    if not task.cancelled():
        task.exception()  # said already, to whom was there
