"""What is asked: in the product's documents, as plain JSON of the bare application, in PostGraphile's documents."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any
from uuid import UUID

from bench.load import request
from bench.peers import postgraphile
from bench.seed import Seeded
from core.ids import encode

VARIED = 200
"""Different requests of a read, asked in turn: no answer can be kept for the next."""

ONE = """query One($id: ID!) { session(id: $id) {
  id title status runtime permissionMode messageCount toolExecutionCount createdAt updatedAt
} }"""

NESTED = """query Nested($first: Int!, $messages: Int!, $before: DateTime!) {
  sessions(first: $first, filter: {createdBefore: $before}) { nodes {
    id title status toolExecutionCount
    owner { id name }
    messages(first: $messages, newestFirst: true) { totalCount nodes { id role text createdAt } }
  } }
}"""

FLAT = """query Flat($first: Int!, $messages: Int!, $before: DateTime!) {
  sessions(first: $first, filter: {createdBefore: $before, labels: [{name: "size", value: "long"}]}) { nodes {
    messages(first: $messages) { nodes { id role status seq text createdAt } }
  } }
}"""

SEND = """mutation Send($input: SendMessageInput!) { sendMessage(input: $input) {
  message { id seq role text createdAt }
} }"""

EVENTS = """subscription Events($id: ID!, $after: Cursor) { sessionEvents(sessionId: $id, after: $after) {
  seq type name at data
} }"""

SESSION_PLACE = "query Place($id: ID!) { session(id: $id) { lastEventCursor } }"

TEXT = "Say how the checks went, and what is left to do before the release."


class Speaks(Enum):
    """In which words a contestant is asked."""

    GRAPHQL = "the product's documents"
    PLAIN = "their variables, each kind at a path of its own"
    POSTGRAPHILE = "documents of the schema that PostGraphile makes of the same tables"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request. `path` is the bare application's; `copies` are documents that differ only in their names."""

    key: str
    title: str
    path: str
    document: str
    variables: tuple[dict[str, Any], ...]
    writes: bool = False
    copies: int = 1


def one_session(seeded: Seeded) -> Case:
    chosen = random.Random(3).choices(seeded.session_ids, k=VARIED)
    return Case("Q1", "one session by id", "/one", ONE, tuple({"id": encode("ses", id_)} for id_ in chosen))


def copies(case: Case, number: int) -> Case:
    """The same case in so many documents, asked in turn."""
    return replace(case, copies=number)


def nested(seeded: Seeded, sessions: int = 50, messages: int = 10) -> Case:
    return Case(
        "Q2",
        f"{sessions} sessions, owner, last {messages} messages, counts",
        "/nested",
        NESTED,
        _pages(seeded, first=sessions, messages=messages),
    )


def flat(seeded: Seeded, sessions: int = 10, messages: int = 100) -> Case:
    return Case(
        "Q3",
        f"{sessions * messages:,} messages, 6 fields",
        "/flat",
        FLAT,
        _pages(seeded, first=sessions, messages=messages),
    )


def send(seeded: Seeded, session_ids: list[UUID]) -> Case:
    """To many sessions, each its own: no write waits for another's row."""
    inputs = tuple({"input": {"sessionId": encode("ses", id_), "text": TEXT}} for id_ in session_ids)
    return Case("M1", "send a message", "/send", SEND, inputs, writes=True)


def requests(case: Case, token: str, port: int, speaks: Speaks) -> Callable[[], bytes]:
    """The case's requests as bytes, in turn."""
    number = max(len(case.variables), case.copies)
    prebuilt = itertools.cycle(
        [
            request(*_asked(case, number, variables, speaks), token, port)
            for number, variables in zip(range(number), itertools.cycle(case.variables), strict=False)
        ]
    )
    return lambda: next(prebuilt)


def _asked(case: Case, number: int, variables: dict[str, Any], speaks: Speaks) -> tuple[str, dict[str, Any]]:
    if speaks is Speaks.PLAIN:
        return case.path, variables
    document = case.document
    if speaks is Speaks.POSTGRAPHILE:
        document, variables = postgraphile.asked(case.key, variables)
    if case.copies > 1:
        document = re.sub(r"^(query|mutation) (\w+)", rf"\1 \g<2>{number % case.copies}", document)
    return "/graphql", {"query": document, "variables": variables}


def _pages(seeded: Seeded, *, first: int, messages: int) -> tuple[dict[str, Any], ...]:
    moments = random.Random(4).choices(seeded.moments, k=VARIED)
    return tuple({"first": first, "messages": messages, "before": moment.isoformat()} for moment in moments)
