"""What spans and points of metrics are read with: names, numbers, times, and who they are about."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from integrations.otlp.base import Origin

LONGEST_NAME = 200
LARGEST_COUNT = 10**10
"""Of one span or point: tokens, dollars, lines, seconds. More is a mistake, and sums have to hold many of them."""
AHEAD = timedelta(hours=24)
"""How far a clock may be ahead of ours."""
BEHIND = timedelta(days=400)
"""How old what is sent may be."""


class Rejected(Exception):
    """This span or point cannot be taken; the reason is told to whoever sent it."""


@dataclass(slots=True)
class Shared:
    """What the services of one request share."""

    since: Mapping[str, datetime]
    """By table: facts of before have been dropped, and nobody can tell whether these are among them."""
    sessions: int = 1000
    """How many more sessions may begin in it, besides one for each point."""

    def take_sessions(self, number: int) -> None:
        """A point begins so many. Raises Rejected where there are too many of them together."""
        if number - 1 > self.sessions:
            raise Rejected("too many sessions began in one request")
        self.sessions -= max(number - 1, 0)


@dataclass(slots=True)
class Facts:
    """What a service's part of a request comes to, by table."""

    shared: Shared
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    superseded: int = 0
    """Usage that the other signal of the same service tells already."""
    ignored: int = 0
    """Points of metrics that say nothing of agents."""

    def add(self, table: str, row: dict[str, Any]) -> None:
        """One more row. Raises Rejected for one of a time of which facts have been dropped."""
        if row["at"] < (since := self.shared.since[table]):
            raise Rejected(f"it is of before {since:%Y-%m-%d}: facts of that time have been dropped")
        self.rows.setdefault(table, []).append(row)


@dataclass(frozen=True, slots=True)
class Source:
    """Where spans or points of one resource come from, and what is known of it."""

    service: str
    now: datetime
    usage_from_spans: bool
    tells_cost: bool
    """Whether it has told lately what its usage cost: then its tokens are not priced besides."""
    default_user: UUID | None
    users: Mapping[str, UUID]
    """Users of the organisation by their mail address, for senders who may speak of others."""

    def user_of(self, *attributes: Mapping[str, Any]) -> UUID | None:
        """Whom it is about."""
        for given in attributes:
            for name in ("user.email", "enduser.id", "user.id"):
                if isinstance(value := given.get(name), str) and (found := self.users.get(value.lower())):
                    return found
        return self.default_user


def addresses_in(*attributes: Mapping[str, Any]) -> set[str]:
    """What may be mail addresses of users, in lower case."""
    return {
        value.lower()
        for given in attributes
        for name in ("user.email", "enduser.id", "user.id")
        if isinstance(value := given.get(name), str) and "@" in value and len(value) <= LONGEST_NAME
    }


def fact_id(*parts: bytes) -> UUID:
    """The id of what these parts name: the same for the same, so that what is sent twice is there once."""
    digest = hashlib.blake2b(digest_size=16, person=b"quarterdeckotlp")
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return UUID(bytes=digest.digest())


def time_of(nanoseconds: int, now: datetime) -> datetime:
    """An instant, to the microsecond. Raises Rejected for none, and for one that only a wrong clock can give."""
    if nanoseconds <= 0:
        raise Rejected("it does not say when it was")
    try:
        at = datetime.fromtimestamp(nanoseconds // 10**9, UTC) + timedelta(microseconds=nanoseconds % 10**9 // 1000)
    except (OverflowError, ValueError, OSError):
        raise Rejected("its time is no time") from None
    if at > now + AHEAD:
        raise Rejected(f"its time is more than {AHEAD // timedelta(hours=1)} hours ahead: check the sender's clock")
    if at < now - BEHIND:
        raise Rejected(f"it is older than {BEHIND.days} days")
    return at


def text_of(given: Mapping[str, Any], *names: str) -> str | None:
    """The first of these attributes that is text, as it can be stored."""
    for name in names:
        if isinstance(value := given.get(name), str) and value:
            return label(value)
    return None


def label(value: str) -> str:
    """Text that fits a column: without NUL, and not too long."""
    return value.replace("\0", "\ufffd")[:LONGEST_NAME]


def count_of(given: Mapping[str, Any], names: Sequence[str]) -> int | None:
    """The first of these attributes that is a number. Raises Rejected for one that counts nothing."""
    for name in names:
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not math.isfinite(value) or not 0 <= value <= LARGEST_COUNT:
            raise Rejected(f"{name} is {value}, which is no number of tokens")
        return int(value)
    return None


def opentelemetry(origin: Origin) -> str:
    """OpenTelemetry's semantic conventions, with the version that the address of a schema names."""
    version = origin.schema_url.rsplit("/", 1)[-1]
    return f"opentelemetry {version[:20]}" if version else "opentelemetry"


def name_of(tool: str) -> tuple[str | None, str]:
    """Server and name of a tool, as Quarterdeck calls them: Claude's `mcp__git__log` is `git.log` of `git`."""
    if tool.startswith("mcp__"):
        server, separator, name = tool[5:].partition("__")
        if separator and server and name:
            return label(server), label(f"{server}.{name}")
    return None, label(tool)
