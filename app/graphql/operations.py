"""Running operations as every door does: a failure that nobody foresaw is said, and a mutation runs to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from graphql import OperationType

from core.futures import retrieved
from schema.bodies import Body, failure
from schema.context import Context
from schema.execution import Graph, Prepared, Refused

# TCP takes a little while it is not read; after this long without progress the client is taken for stuck.
SEND_SECONDS = 15.0

# The event loop holds tasks only weakly.
_mutations: set[asyncio.Task[Body]] = set()


async def results(graph: Graph, prepared: Prepared, context: Context) -> AsyncGenerator[Body, None]:
    """The responses to an operation that is executed for its client alone; raises Refused, whatever goes wrong.

    A mutation that has begun runs to its end, also where its client does not wait for it.
    """
    try:
        if prepared.kind is OperationType.MUTATION:
            task = asyncio.create_task(_answer(graph, prepared, context))
            _mutations.add(task)
            task.add_done_callback(_ended)
            yield await asyncio.shield(task)
        elif prepared.kind is OperationType.QUERY:
            yield await graph.answer(prepared, context)
        else:
            async with aclosing(graph.stream(prepared, context)) as found:
                async for body in found:
                    yield body
    except Refused:
        raise
    except Exception as error:
        raise Refused(failure(error)) from None


async def _answer(graph: Graph, prepared: Prepared, context: Context) -> Body:
    try:
        return await graph.answer(prepared, context)
    except Refused:
        raise
    except Exception as error:
        raise Refused(failure(error)) from None


def _ended(task: asyncio.Task[Body]) -> None:
    _mutations.discard(task)
    retrieved(task)
