"""Executes documents: parse and validate once, check the size, run, and say errors in one shape."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    ExecutionResult,
    Executor,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    StringValueNode,
    Visitor,
    create_source_event_stream,
    execute,
    get_operation_ast,
    parse,
    specified_rules,
    validate,
    visit,
)

from core.errors import BadInput, QuarterdeckError
from core.settings import Settings
from executor import Begun, Plans, Unsupported
from schema.bodies import Body, body_of, refusal
from schema.context import Context
from schema.errors import formatted
from schema.limits import check_size, page_variables
from schema.plans import outline_of

# Documents are kept by the memory they take, so that a flood of large ones cannot fill it.
# A document takes about 100 bytes of memory for each of its characters.
CACHE_CHARACTERS = 1_000_000
LARGEST_DOCUMENT = 200_000
MOST_SIZES = 8
"""Page sizes by variables that are remembered of a document."""


class Request(NamedTuple):
    """One GraphQL request, its JSON checked for shape."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None


@dataclass(eq=False)
class Refused(Exception):
    """The request was refused before execution: a response without `data`."""

    body: Body


class Prepared(NamedTuple):
    """A request whose document is valid, and whose operation is small enough."""

    request: Request
    document: DocumentNode
    operation: OperationDefinitionNode

    @property
    def kind(self) -> OperationType:
        return self.operation.operation


class Graph:
    """The schema, and the documents it knows."""

    def __init__(self, schema: GraphQLSchema, settings: Settings, *, plans: bool = True) -> None:
        """With `plans` false everything is executed by graphql-core: the reference that plans are compared with."""
        self._schema, self._settings = schema, settings
        self._plans = Plans(schema, outline_of(schema)) if plans else None
        self.fallbacks: Counter[str] = Counter()
        """How many operations plans did not support, by reason."""
        self.planned = 0
        """How many operations were executed by plans."""
        self._documents: OrderedDict[str, _Document] = OrderedDict()
        self._characters = 0

    def prepare(self, request: Request) -> Prepared:
        """Find the operation that a request asks for; raises Refused where the document or its size is not
        acceptable."""
        known = self._documents.get(request.query)
        if known is None:
            known = self._parse(request.query)
        else:
            self._documents.move_to_end(request.query)
        operation = known.operation(request.operation_name)
        size = known.size(request)
        if size is None or size not in known.allowed:
            try:
                check_size(self._schema, known.node, operation, request.variables, self._settings)
            except QuarterdeckError as error:
                raise Refused(refusal(error)) from None
            known.allow(size)
        return Prepared(request, known.node, operation)

    async def execute(self, request: Request, context: Context) -> Body:
        """The response to a query or mutation; raises Refused."""
        return await self.answer(self.prepare(request), context)

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
        if self._plans is None:
            return None
        try:
            begun = self._plans.begin(
                prepared.request.query, prepared.document, prepared.operation, prepared.request.variables
            )
        except Unsupported:
            return None
        return None if isinstance(begun, list) else begun

    async def stream(self, prepared: Prepared, context: Context) -> AsyncGenerator[Body, None]:
        """The responses to a subscription; raises Refused before the first, or where it fails later."""
        executor = Executor.build(
            self._schema,
            prepared.document,
            context_value=context,
            raw_variable_values=prepared.request.variables,
            operation_name=prepared.request.operation_name,
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
        request, document = prepared.request, prepared.document
        if self._plans is not None:
            try:
                result = await self._plans.execute(
                    request.query, document, prepared.operation, request.variables, context, root
                )
            except Unsupported as unsupported:
                self.fallbacks[unsupported.reason] += 1
            else:
                self.planned += 1
                return result
        found = execute(
            self._schema,
            document,
            root,
            context_value=context,
            variable_values=request.variables,
            operation_name=request.operation_name,
        )
        return await found if isawaitable(found) else found

    def _parse(self, text: str) -> _Document:
        if len(text) > LARGEST_DOCUMENT:
            raise Refused(refusal(BadInput(f"A document has at most {LARGEST_DOCUMENT} characters.")))
        try:
            document = parse(text, max_tokens=self._settings.max_query_tokens, no_location=False)
        except GraphQLError as error:
            raise Refused({"errors": formatted([error])}) from None
        except RecursionError:
            raise Refused(refusal(BadInput("The document is nested too deeply to be read."))) from None
        if "\0" in text or "\\u" in text:
            visit(document, _NoNul())
        if problems := validate(self._schema, document, specified_rules, max_errors=20):
            raise Refused({"errors": formatted(problems)})
        known = self._documents[text] = _Document(document, page_variables(document))
        self._characters += len(text)
        while self._characters > CACHE_CHARACTERS:
            dropped, _ = self._documents.popitem(last=False)
            self._characters -= len(dropped)
        return known


@dataclass(slots=True)
class _Document:
    """A valid document, and the sizes in which it was found small enough."""

    node: DocumentNode
    pages: frozenset[str]
    """The variables that say how big a page is."""
    allowed: set[Hashable] = field(default_factory=set)
    operations: dict[str | None, OperationDefinitionNode] = field(default_factory=dict)

    def operation(self, name: str | None) -> OperationDefinitionNode:
        """The operation of this name, or the only one; raises Refused."""
        found = self.operations.get(name) or get_operation_ast(self.node, name)
        if found is None:
            raise Refused(
                refusal(
                    BadInput(f"The document has no operation named {name!r}.")
                    if name
                    else BadInput("The document has several operations: say which one with operationName.")
                )
            )
        self.operations[name] = found
        return found

    def size(self, request: Request) -> Hashable:
        """What the operation's size depends on; None where that is no number."""
        if not self.pages:
            return (request.operation_name,)
        pages = {name: request.variables.get(name) for name in self.pages}
        if not all(value is None or type(value) is int for value in pages.values()):
            return None
        return request.operation_name, *pages.items()

    def allow(self, size: Hashable) -> None:
        if len(self.allowed) >= MOST_SIZES:
            self.allowed.clear()
        if size is not None:
            self.allowed.add(size)


class _NoNul(Visitor):
    """Refuses texts in the document that the database cannot hold; those in variables are refused at the door."""

    def enter_string_value(self, node: StringValueNode, *_: Any) -> None:
        if "\0" in node.value:
            raise Refused(refusal(BadInput("Text may not hold the character U+0000: it cannot be stored.")))
