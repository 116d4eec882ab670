"""Executes documents: parse and validate once, check the size, run, and say errors in one shape."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, NamedTuple

from graphql import (
    ExecutionResult,
    Executor,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    create_source_event_stream,
    execute,
)

from core.errors import BadInput, QuarterdeckError
from core.permissions import Actor
from core.settings import Settings
from executor import Begun, Plans, Unsupported
from schema.bodies import Body, body_of, refusal
from schema.context import Context
from schema.documents import Document, Reader, Shelf, Unreadable
from schema.errors import formatted
from schema.limits import check_size
from schema.persisted import PersistedDocuments, Reference
from schema.plans import outline_of

CACHE_CHARACTERS = 400_000
REGISTERED_CHARACTERS = 1_000_000
"""Registered documents and their plans have a place of their own, where no flood of others pushes them out."""


class Request(NamedTuple):
    """One GraphQL request, its JSON checked for shape."""

    query: str
    """Empty where only an id was sent."""
    variables: dict[str, Any]
    operation_name: str | None
    reference: Reference | None = None


@dataclass(eq=False)
class Refused(Exception):
    """The request was refused before execution: a response without `data`."""

    body: Body


class Prepared(NamedTuple):
    """A request whose document is valid, and whose operation is small enough."""

    text: str
    document: Document
    operation: OperationDefinitionNode
    operation_name: str | None
    variables: dict[str, Any]
    registered: bool

    @property
    def kind(self) -> OperationType:
        return self.operation.operation


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
        self.persisted = PersistedDocuments(settings)
        self._reader = Reader(schema, settings)
        self._documents = Shelf(CACHE_CHARACTERS)
        self._registered_documents = Shelf(REGISTERED_CHARACTERS)

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

    async def prepare(self, request: Request, actor: Actor | None) -> Prepared:
        """Find the document and the operation that a request asks for. Raises Refused where the one is not acceptable,
        or the other too big.

        It may wait for the database, and reads documents that are new without holding up others.
        """
        text, registered, document = self._known(request) or await self._find(request, actor)
        operation = document.operation(request.operation_name)
        if operation is None:
            raise Refused(
                refusal(
                    BadInput(f"The document has no operation named {request.operation_name!r}.")
                    if request.operation_name
                    else BadInput("The document has several operations: say which one with operationName.")
                )
            )
        size = document.size(request.operation_name, request.variables)
        if size is None or size not in document.allowed:
            try:
                check_size(self._schema, document.node, operation, request.variables, self._settings)
            except QuarterdeckError as error:
                raise Refused(refusal(error)) from None
            document.allow(size)
        return Prepared(text, document, operation, request.operation_name, request.variables, registered)

    async def execute(self, request: Request, context: Context) -> Body:
        """The response to a query or mutation; raises Refused."""
        return await self.answer(await self.prepare(request, context.caller), context)

    async def answer(self, prepared: Prepared, context: Context) -> Body:
        """The response to a query or mutation that was prepared; raises Refused."""
        if prepared.kind is OperationType.SUBSCRIPTION:
            raise Refused(
                refusal(
                    BadInput("Subscriptions come over a WebSocket (graphql-transport-ws), or as text/event-stream.")
                )
            )
        return body_of(await self._execute(prepared, context))

    def begin(self, prepared: Prepared) -> Begun | None:
        """The operation, ready to be executed by its plan; None where it has none, or where its variables are wrong."""
        plans = self._plans_for(prepared)
        if plans is None:
            return None
        try:
            begun = plans.begin(prepared.text, prepared.document.node, prepared.operation, prepared.variables)
        except Unsupported:
            return None
        return None if isinstance(begun, list) else begun

    async def stream(self, prepared: Prepared, context: Context) -> AsyncGenerator[Body, None]:
        """The responses to a subscription; raises Refused before the first, or where it fails later."""
        executor = Executor.build(
            self._schema,
            prepared.document.node,
            context_value=context,
            raw_variable_values=prepared.variables,
            operation_name=prepared.operation_name,
        )
        if isinstance(executor, list):
            raise Refused({"errors": formatted(executor)})
        started = create_source_event_stream(executor)
        source: Any = await started if isawaitable(started) else started
        if isinstance(source, ExecutionResult):
            raise Refused({"errors": formatted(source.errors or [])})
        async with aclosing(source):
            try:
                async for event in source:
                    yield body_of(await self._execute(prepared, context, event))
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except Exception as error:
                raise Refused({"errors": formatted([GraphQLError(str(error), original_error=error)])}) from None

    async def _execute(self, prepared: Prepared, context: Context, root: Any = None) -> ExecutionResult:
        plans, document = self._plans_for(prepared), prepared.document.node
        result = None
        if plans is not None:
            try:
                result = await plans.execute(
                    prepared.text, document, prepared.operation, prepared.variables, context, root
                )
            except Unsupported as unsupported:
                self.fallbacks[unsupported.reason] += 1
            else:
                self.planned += 1
        if result is None:
            found = execute(
                self._schema,
                document,
                root,
                context_value=context,
                variable_values=prepared.variables,
                operation_name=prepared.operation_name,
            )
            result = await found if isawaitable(found) else found
        self.outcomes["errors" if result.errors else "ok"] += 1
        return result

    def _known(self, request: Request) -> tuple[str, bool, Document] | None:
        """The document, where it is at hand."""
        if request.reference is None:
            if not self.persisted.only_registered and (found := self._documents.get(request.query)):
                return request.query, False, found
        elif not request.query:
            text = self.persisted.registered.known(request.reference.identifier)
            if text is not None and (found := self._registered_documents.get(text)):
                return text, True, found
        return None

    async def _find(self, request: Request, actor: Actor | None) -> tuple[str, bool, Document]:
        try:
            text, registered = await self.persisted.find(request.query, request.reference)
            shelf = self._registered_documents if registered else self._documents
            document = shelf.get(text)
            if document is None:
                # What operators registered is not held against whoever sends it first.
                user = None if registered else actor.user_id if actor else "nobody signed in"
                document = await self._reader.read_for(user, text)
                shelf.put(text, document)
            if request.query and request.reference is not None:
                self.persisted.remember(text, request.reference)
        except QuarterdeckError as error:
            raise Refused(refusal(error)) from None
        except Unreadable as error:
            raise Refused({"errors": formatted(error.errors)}) from None
        return text, registered, document

    def _plans_for(self, prepared: Prepared) -> Plans | None:
        return self._registered_plans if prepared.registered else self._plans
