"""Executes documents: parse and validate once, check the size, run, and say errors in one shape."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from inspect import isawaitable
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    Executor,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    create_source_event_stream,
    execute,
    get_operation_ast,
)

from core.errors import BadInput, QuarterdeckError
from core.permissions import Actor
from core.settings import Settings
from executor import Plans, Unsupported
from schema.context import Context
from schema.documents import Document, Reader, Shelf, Unreadable
from schema.errors import as_graphql, formatted
from schema.limits import check_size
from schema.persisted import PersistedDocuments, Reference
from schema.plans import outline_of

Body = dict[str, Any]

CACHE_CHARACTERS = 1_000_000
REGISTERED_CHARACTERS = 2_000_000
"""Registered documents and their plans have a place of their own, where no flood of others pushes them out."""


@dataclass(frozen=True, slots=True)
class Request:
    """One GraphQL request, its JSON checked for shape."""

    query: str
    """Empty where only an id was sent, until `Graph.resolve` has found the document."""
    variables: dict[str, Any]
    operation_name: str | None
    reference: Reference | None = None
    registered: bool = False
    refusal: Body | None = None
    """What is wrong with the document, where that is known already."""


@dataclass(eq=False)
class Refused(Exception):
    """The request was refused before execution: a response without `data`."""

    body: Body


@dataclass(frozen=True, slots=True)
class Kept:
    """How many documents and plans are in memory, and what they weigh."""

    documents: int
    characters: int
    plans: int
    weight: int


class Graph:
    """The schema, and the documents it knows."""

    def __init__(self, schema: GraphQLSchema, settings: Settings, *, plans: bool = True) -> None:
        """With `plans` false everything is executed by graphql-core: the reference that plans are compared with."""
        self._schema, self._settings = schema, settings
        outline = outline_of(schema) if plans else None
        self._plans = Plans(schema, outline) if outline is not None else None
        self._registered_plans = Plans(schema, outline) if outline is not None else None
        self.fallbacks: Counter[str] = Counter()
        """How many operations plans did not support, by reason."""
        self.planned = 0
        """How many operations were executed by plans."""
        self.outcomes: Counter[str] = Counter()
        """How many executions, also of events, came to `ok` or to `errors`."""
        self.streaming = 0
        """How many subscriptions are being followed now."""
        self.persisted = PersistedDocuments(settings)
        self._reader = Reader(schema, settings)
        self._documents = Shelf(CACHE_CHARACTERS)
        self._registered_documents = Shelf(REGISTERED_CHARACTERS)

    async def resolve(self, request: Request, actor: Actor | None) -> Request:
        """The request with its document found and checked. What is wrong with it is said by whatever executes it.

        Doors call it first: it may wait for the database, and reads large documents without holding up others.
        """
        if request.reference is None:
            if not self.persisted.only_registered and self._documents.get(request.query):
                return request
        elif not request.query:
            known = self.persisted.registered.known(request.reference.identifier)
            if known is not None and self._registered_documents.get(known):
                return Request(known, request.variables, request.operation_name, None, True)
        try:
            text, registered = await self.persisted.find(request.query, request.reference)
            shelf = self._shelf(registered)
            if shelf.get(text) is None:
                # What operators registered is not held against whoever sends it first.
                user = None if registered else actor.user_id if actor else "nobody signed in"
                shelf.put(text, await self._reader.read_for(user, text))
            if request.query and request.reference is not None:
                self.persisted.remember(text, request.reference)
        except QuarterdeckError as error:
            return replace(request, refusal=_refusal(error))
        except Unreadable as error:
            return replace(request, refusal={"errors": formatted(error.errors)})
        return Request(text, request.variables, request.operation_name, None, registered)

    def kept(self) -> dict[str, Kept]:
        """What is kept in memory, of documents that clients sent (`sent`) and of registered ones (`registered`)."""
        return {
            name: Kept(len(shelf), shelf.characters, *(len(plans), plans.weight) if plans is not None else (0, 0))
            for name, shelf, plans in (
                ("sent", self._documents, self._plans),
                ("registered", self._registered_documents, self._registered_plans),
            )
        }

    def problems(self, text: str) -> list[str]:
        """Why a document cannot be executed, each in a line; none where it can."""
        try:
            document = self._reader.read(text)
            for node in document.node.definitions:
                if isinstance(node, OperationDefinitionNode):
                    check_size(self._schema, document.node, node, {}, self._settings)
        except Unreadable as unreadable:
            return [error.message.partition("\n")[0] for error in unreadable.errors]
        except QuarterdeckError as error:
            return [error.message]
        return []

    def operation(self, request: Request) -> OperationDefinitionNode:
        """The operation that a request asks for; raises Refused where the document or its size is not acceptable."""
        return self._prepare(request)[1]

    async def execute(self, request: Request, context: Context) -> Body:
        """The response to a query or mutation; raises Refused."""
        document, operation = self._prepare(request)
        if operation.operation is OperationType.SUBSCRIPTION:
            raise Refused(
                _refusal(
                    BadInput("Subscriptions come over a WebSocket (graphql-transport-ws), or as text/event-stream.")
                )
            )
        return _body(await self._execute(request, document, operation, context))

    async def stream(self, request: Request, context: Context) -> AsyncGenerator[Body, None]:
        """The responses to a subscription, or the one response to anything else; raises Refused before the first."""
        document, operation = self._prepare(request)
        if operation.operation is not OperationType.SUBSCRIPTION:
            yield await self.execute(request, context)
            return
        executor = Executor.build(
            self._schema,
            document,
            context_value=context,
            raw_variable_values=request.variables,
            operation_name=request.operation_name,
        )
        if isinstance(executor, list):
            raise Refused({"errors": formatted(executor)})
        started = create_source_event_stream(executor)
        source: Any = await started if isawaitable(started) else started
        if isinstance(source, ExecutionResult):
            raise Refused(_body(source, with_data=False))
        async with aclosing(source):
            self.streaming += 1
            try:
                async for event in source:
                    yield _body(await self._execute(request, document, operation, context, event))
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except Exception as error:
                raise Refused({"errors": formatted([GraphQLError(str(error), original_error=error)])}) from None
            finally:
                self.streaming -= 1

    async def _execute(
        self,
        request: Request,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        context: Context,
        root: Any = None,
    ) -> ExecutionResult:
        plans = self._registered_plans if request.registered else self._plans
        if plans is not None:
            try:
                result = await plans.execute(request.query, document, operation, request.variables, context, root)
            except Unsupported as unsupported:
                self.fallbacks[unsupported.reason] += 1
            else:
                self.planned += 1
                self.outcomes["errors" if result.errors else "ok"] += 1
                return result
        found = execute(
            self._schema,
            document,
            root,
            context_value=context,
            variable_values=request.variables,
            operation_name=request.operation_name,
        )
        result = await found if isawaitable(found) else found
        self.outcomes["errors" if result.errors else "ok"] += 1
        return result

    def _prepare(self, request: Request) -> tuple[DocumentNode, OperationDefinitionNode]:
        if request.refusal is not None:
            raise Refused(request.refusal)
        known = self._shelf(request.registered).get(request.query) or self._read(request)
        document = known.node
        operation = get_operation_ast(document, request.operation_name)
        if operation is None:
            raise Refused(
                _refusal(
                    BadInput(f"The document has no operation named {request.operation_name!r}.")
                    if request.operation_name
                    else BadInput("The document has several operations: say which one with operationName.")
                )
            )
        size = known.size(request.operation_name, request.variables)
        if size is None or size not in known.allowed:
            try:
                check_size(self._schema, document, operation, request.variables, self._settings)
            except QuarterdeckError as error:
                raise Refused(_refusal(error)) from None
            known.allow(size)
        return document, operation

    def _read(self, request: Request) -> Document:
        try:
            document = self._reader.read(request.query)
        except Unreadable as error:
            raise Refused({"errors": formatted(error.errors)}) from None
        self._shelf(request.registered).put(request.query, document)
        return document

    def _shelf(self, registered: bool) -> Shelf:
        return self._registered_documents if registered else self._documents


def _body(result: ExecutionResult, *, with_data: bool = True) -> Body:
    body: Body = {"data": result.data} if with_data and result.data is not None else {}
    if with_data and result.data is None:
        body["data"] = None
    if result.errors:
        body["errors"] = formatted(result.errors)
    return body


def _refusal(error: QuarterdeckError) -> Body:
    return {"errors": formatted([as_graphql(error)])}
