"""What is asked: GraphQL for those who speak it, the same in plain JSON for the bare application."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bench.load import request
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


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request. `path` is the bare application's."""

    key: str
    title: str
    path: str
    document: str
    variables: tuple[dict[str, Any], ...]
    writes: bool = False

    def bodies(self) -> Iterator[dict[str, Any]]:
        """The variables, in turn, for ever."""
        return itertools.cycle(self.variables)


def one_session(seeded: Seeded) -> Case:
    chosen = random.Random(3).choices(seeded.session_ids, k=VARIED)
    return Case("Q1", "one session by id", "/one", ONE, tuple({"id": encode("ses", id_)} for id_ in chosen))


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


def requests(case: Case, token: str, port: int, *, graphql: bool) -> Callable[[], bytes]:
    """The case's requests as bytes, in turn."""
    path = "/graphql" if graphql else case.path
    prebuilt = itertools.cycle(
        [
            request(path, {"query": case.document, "variables": variables} if graphql else variables, token, port)
            for variables in case.variables
        ]
    )
    return lambda: next(prebuilt)


def _pages(seeded: Seeded, *, first: int, messages: int) -> tuple[dict[str, Any], ...]:
    moments = random.Random(4).choices(seeded.moments, k=VARIED)
    return tuple({"first": first, "messages": messages, "before": moment.isoformat()} for moment in moments)
