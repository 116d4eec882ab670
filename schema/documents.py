"""Reading documents: they are parsed and validated once, and kept.

Checking a document costs more than executing most of them, so one that is new to the process may not hold up others:
it is read in a thread, each user's one after the other, and whoever sends many is told to wait.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FloatValueNode,
    GraphQLError,
    GraphQLSchema,
    IntValueNode,
    OperationDefinitionNode,
    OverlappingFieldsCanBeMergedRule,
    StringValueNode,
    ValidationContext,
    Visitor,
    get_operation_ast,
    parse,
    specified_rules,
    validate,
    visit,
)
from graphql.validation.validate import ValidationAbortedError

from core.errors import BadInput, LimitExceeded, QuarterdeckError, RateLimited
from core.futures import retrieved
from core.settings import Settings
from schema.errors import as_graphql
from schema.limits import page_variables

LARGEST_DOCUMENT = 200_000
MOST_DIGITS = 1000
"""Of a number in a document: Python takes no more than some thousand."""
MOST_SIZES = 8
"""Page sizes by variables that are remembered of a document."""
MOST_COMPARISONS = 100_000
"""Steps of comparing fields that share a name. Documents of hand-written clients take hundreds, seldom thousands."""

FREE_SECONDS = 3.0
"""Processor time for new documents that a user may take at once …"""
SHARE = 0.25
"""… and the share of it that they may take for good."""
SECONDS_PER_CHARACTER = 2e-5
"""What is held against a user until it is known what reading took: the most that was seen."""
MOST_USERS = 10_000


class Unreadable(Exception):
    """The document is not acceptable; `errors` are for the response."""

    def __init__(self, *errors: GraphQLError) -> None:
        super().__init__(errors[0].message)
        self.errors = list(errors)


@dataclass(slots=True)
class Document:
    """A valid document, and the sizes in which it was found small enough."""

    node: DocumentNode
    pages: frozenset[str]
    """The variables that say how big a page is."""
    allowed: set[Hashable] = field(default_factory=set)
    operations: dict[str | None, OperationDefinitionNode] = field(default_factory=dict)

    def operation(self, name: str | None) -> OperationDefinitionNode | None:
        """The operation of this name, or the only one; None where there is none, or the name is missing."""
        found = self.operations.get(name)
        if found is None and (found := get_operation_ast(self.node, name)) is not None:
            self.operations[name] = found
        return found

    def size(self, operation_name: str | None, variables: dict[str, Any]) -> Hashable:
        """What the operation's size depends on; None where that is no number."""
        if not self.pages:
            return (operation_name,)
        pages = {name: variables.get(name) for name in self.pages}
        if not all(value is None or type(value) is int for value in pages.values()):
            return None
        return operation_name, *pages.items()

    def allow(self, size: Hashable) -> None:
        if len(self.allowed) >= MOST_SIZES:
            self.allowed.clear()
        if size is not None:
            self.allowed.add(size)


class Shelf:
    """Documents by their text, kept by the memory they take: the least recently used goes first.

    A document takes about 100 bytes of memory for each of its characters.
    """

    def __init__(self, most_characters: int) -> None:
        self._most = most_characters
        self._documents: OrderedDict[str, Document] = OrderedDict()
        self.characters = 0

    def __len__(self) -> int:
        return len(self._documents)

    def get(self, text: str) -> Document | None:
        known = self._documents.get(text)
        if known is not None:
            self._documents.move_to_end(text)
        return known

    def put(self, text: str, document: Document) -> None:
        if text in self._documents:
            return
        self._documents[text] = document
        self.characters += len(text)
        while self.characters > self._most:
            dropped, _ = self._documents.popitem(last=False)
            self.characters -= len(dropped)


class Reader:
    """Parses and validates documents of one schema."""

    def __init__(self, schema: GraphQLSchema, settings: Settings) -> None:
        self._schema, self._settings = schema, settings
        self._paces = _Paces()
        # One thread: the interpreter runs one at a time in any case, and gives way to requests now and then.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="documents")
        self._under_way: dict[str, asyncio.Task[Document]] = {}

    def read(self, text: str) -> Document:
        """The document; raises Unreadable."""
        _check_length(text)
        try:
            document = parse(text, max_tokens=self._settings.max_query_tokens, no_location=False)
        except GraphQLError as error:
            raise Unreadable(error) from None
        except RecursionError:
            raise _unreadable(BadInput("The document is nested too deeply to be read.")) from None
        if "\0" in text or "\\u" in text or any(len(run) > MOST_DIGITS for run in _DIGITS.findall(text)):
            visit(document, _Storable())
        problems = validate(self._schema, document, _RULES, max_errors=20)
        if problems:
            if isinstance(problems[-1], ValidationAbortedError) and len(problems) <= 20:
                raise _unreadable(
                    LimitExceeded(
                        "The document is too entangled to be checked: it asks for the same fields, or spreads "
                        "fragments within fragments, too often.",
                        limit="comparisons",
                        allowed=MOST_COMPARISONS,
                    )
                )
            raise Unreadable(*problems)
        return Document(document, page_variables(document))

    async def read_for(self, user: Hashable | None, text: str) -> Document:
        """The same without holding up others. Raises Unreadable, also where this user has sent too many new ones;
        None is for documents that are held against nobody."""
        _check_length(text)
        task = self._under_way.get(text)
        if task is None:
            pace = self._paces.of(user)
            pace.take(len(text) * SECONDS_PER_CHARACTER)
            task = self._under_way[text] = asyncio.create_task(self._read_apart(pace, text))
            task.add_done_callback(lambda done: self._read_it(text, done))
        # Others may wait for the same document when this client has gone.
        return await asyncio.shield(task)

    async def _read_apart(self, pace: _Pace, text: str) -> Document:
        spent: list[float] = []
        try:
            async with pace.turn:
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, text, spent)
        finally:
            pace.debt = max(0.0, pace.debt - len(text) * SECONDS_PER_CHARACTER + sum(spent))

    def _read_it(self, text: str, task: asyncio.Task[Document]) -> None:
        del self._under_way[text]
        retrieved(task)

    def _timed(self, text: str, spent: list[float]) -> Document:
        started = time.thread_time()
        try:
            return self.read(text)
        finally:
            spent.append(time.thread_time() - started)


class _Pace:
    """What one user has taken of the processor for new documents."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.debt = 0.0
        self._at = time.monotonic()

    def take(self, seconds: float) -> None:
        """Hold this against the user; raises Unreadable where it has been too much already."""
        at = time.monotonic()
        self.debt = max(0.0, self.debt - (at - self._at) * SHARE)
        self._at = at
        if self.debt > FREE_SECONDS:
            wait = math.ceil((self.debt - FREE_SECONDS) / SHARE)
            raise _unreadable(
                RateLimited(
                    "Too many documents that are new here, or too large ones, in a short time. Put values into "
                    f"variables instead of into the document, and try again in {wait} s.",
                    retryAfterSeconds=wait,
                )
            )
        self.debt += seconds


class _Paces:
    """Those of all users. Who is not signed in is one user with all others who are not."""

    def __init__(self) -> None:
        self._users: OrderedDict[Hashable, _Pace] = OrderedDict()

    def of(self, user: Hashable | None) -> _Pace:
        if user is None:
            return _Pace()
        pace = self._users.pop(user, None) or _Pace()
        self._users[user] = pace
        if len(self._users) > MOST_USERS:
            self._users.popitem(last=False)
        return pace


class _Overlapping(OverlappingFieldsCanBeMergedRule):
    """The library's bound is seconds of work."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self.rule_context.remaining_complexity_budget = MOST_COMPARISONS


_DIGITS = re.compile(r"[0-9]+")
_RULES = [_Overlapping if rule is OverlappingFieldsCanBeMergedRule else rule for rule in specified_rules]


class _Storable(Visitor):
    """Refuses values in the document that nothing can hold; those in variables are refused at the door."""

    def enter_string_value(self, node: StringValueNode, *_: Any) -> None:
        if "\0" in node.value:
            raise _unreadable(BadInput("Text may not hold the character U+0000: it cannot be stored."))

    def enter_int_value(self, node: IntValueNode | FloatValueNode, *_: Any) -> None:
        if len(node.value) > MOST_DIGITS:
            raise _unreadable(BadInput(f"A number has at most {MOST_DIGITS} digits."))

    enter_float_value = enter_int_value


def _check_length(text: str) -> None:
    if len(text) > LARGEST_DOCUMENT:
        raise _unreadable(BadInput(f"A document has at most {LARGEST_DOCUMENT} characters."))


def _unreadable(error: QuarterdeckError) -> Unreadable:
    return Unreadable(as_graphql(error))
