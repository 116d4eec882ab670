"""What is known of somebody in a session, and how processes tell each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson

from core import clock

Key = tuple[UUID, str]
"""A user, and one of their clients: a tab, a phone."""

LARGEST_MESSAGE = 6_000
"""Bytes of JSON; with what the bus puts around it, below its limit."""


class PresenceState(StrEnum):
    """What somebody does in a session."""

    VIEWING = "VIEWING"
    TYPING = "TYPING"
    IDLE = "IDLE"


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody who is in a session with one of their clients."""

    user_id: UUID
    client_id: str
    state: PresenceState
    message_id: UUID | None
    since: datetime

    @property
    def key(self) -> Key:
        return self.user_id, self.client_id


@dataclass(frozen=True, slots=True)
class TextCursor:
    """A place or a range in characters: of a message, or of one's own draft."""

    message_id: UUID | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody is about to say, and where they are in it or in a message."""

    user_id: UUID
    client_id: str
    text: str | None
    cursor: TextCursor | None

    @property
    def key(self) -> Key:
        return self.user_id, self.client_id

    @property
    def size(self) -> int:
        """Bytes on the bus."""
        return len(orjson.dumps(draft_out(self)))


def participant_out(participant: Participant, *, watching: bool) -> list[Any]:
    """For the bus. How long they have been there is told instead of since when: clocks differ."""
    return [
        participant.user_id.hex,
        participant.client_id,
        participant.state.value,
        participant.message_id.hex if participant.message_id else None,
        round((clock.now() - participant.since).total_seconds(), 1),
        watching,
    ]


def participant_in(told: list[Any]) -> tuple[Participant, bool]:
    """What another process told, by this one's clock. Raises ValueError, TypeError for what is none."""
    user, client, state, message, age, watching = told
    since = clock.now() - timedelta(seconds=max(0.0, float(age)))
    return (
        Participant(UUID(user), str(client), PresenceState(state), UUID(message) if message else None, since),
        bool(watching),
    )


def key_out(key: Key) -> list[str]:
    return [key[0].hex, key[1]]


def key_in(told: list[str]) -> Key:
    user, client = told
    return UUID(user), str(client)


def draft_out(draft: Draft) -> list[Any]:
    at = draft.cursor
    return [
        draft.user_id.hex,
        draft.client_id,
        draft.text,
        [at.message_id.hex if at.message_id else None, at.start, at.end] if at else None,
    ]


def draft_in(told: list[Any]) -> Draft:
    user, client, text, at = told
    cursor = TextCursor(UUID(at[0]) if at[0] else None, int(at[1]), int(at[2])) if at else None
    return Draft(UUID(user), str(client), text, cursor)


def chunked(items: Iterable[list[Any]]) -> Iterator[list[list[Any]]]:
    """The items in as many lists as the bus needs messages."""
    chunk: list[list[Any]] = []
    size = 0
    for item in items:
        length = len(orjson.dumps(item)) + 1
        if chunk and size + length > LARGEST_MESSAGE:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """How those in a session differ from what was told before; `participants` are all of them, where none were."""

    joined: tuple[Participant, ...] = ()
    changed: tuple[Participant, ...] = ()
    left: tuple[Participant, ...] = ()
    participants: tuple[Participant, ...] | None = None

    @classmethod
    def between(cls, before: Mapping[Key, Participant], after: Mapping[Key, Participant]) -> PresenceChange | None:
        """None where nothing differs."""
        joined = tuple(one for key, one in after.items() if key not in before)
        changed = tuple(one for key, one in after.items() if key in before and before[key] != one)
        left = tuple(one for key, one in before.items() if key not in after)
        return cls(joined, changed, left) if joined or changed or left else None
