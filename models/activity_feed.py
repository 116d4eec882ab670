"""The activity feed: those events of sessions' logs that say what somebody did. It has no table of its own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from models.base import Row
from models.sharing import SESSION, living


class ActivityKind(StrEnum):
    """What somebody did in a session."""

    SESSION_CREATED = "SESSION_CREATED"
    SESSION_FORKED = "SESSION_FORKED"
    SESSION_UPDATED = "SESSION_UPDATED"
    SESSION_STATUS_CHANGED = "SESSION_STATUS_CHANGED"
    MESSAGE_SENT = "MESSAGE_SENT"
    AGENT_REPLIED = "AGENT_REPLIED"
    RUN_STARTED = "RUN_STARTED"
    RUN_ENDED = "RUN_ENDED"
    TOOL_CALLED = "TOOL_CALLED"
    TOOL_RETURNED = "TOOL_RETURNED"
    APPROVAL_REQUESTED = "APPROVAL_REQUESTED"
    APPROVAL_DECIDED = "APPROVAL_DECIDED"
    ACCESS_CHANGED = "ACCESS_CHANGED"
    SHARE_LINK_CHANGED = "SHARE_LINK_CHANGED"
    ANNOTATION_CHANGED = "ANNOTATION_CHANGED"
    SCORE_CHANGED = "SCORE_CHANGED"
    MESSAGE_REDACTED = "MESSAGE_REDACTED"
    HANDOFF_CHANGED = "HANDOFF_CHANGED"


class Event(Protocol):
    """An event of a session, as a row of the log or as a stream tells it."""

    @property
    def type(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def data(self) -> dict[str, Any]: ...
    @property
    def at(self) -> datetime: ...
    @property
    def actor_kind(self) -> str: ...
    @property
    def actor_id(self) -> UUID | None: ...


class ActivityRow(Row):
    """A row of the log that is an activity, without the long texts in its `data`."""

    __slots__ = ()


_BY_TYPE = {
    "TEXT_MESSAGE_END": ActivityKind.AGENT_REPLIED,
    "RUN_STARTED": ActivityKind.RUN_STARTED,
    "RUN_FINISHED": ActivityKind.RUN_ENDED,
    "RUN_ERROR": ActivityKind.RUN_ENDED,
    "TOOL_CALL_START": ActivityKind.TOOL_CALLED,
    "TOOL_CALL_RESULT": ActivityKind.TOOL_RETURNED,
}
# What follows the last dot is how a change is told, where one kind stands for several.
_NAMES = {
    ActivityKind.SESSION_CREATED: ("session.created",),
    ActivityKind.SESSION_FORKED: ("session.forked",),
    ActivityKind.SESSION_UPDATED: ("session.updated",),
    ActivityKind.SESSION_STATUS_CHANGED: ("session.status",),
    ActivityKind.MESSAGE_SENT: ("message.sent",),
    ActivityKind.APPROVAL_REQUESTED: ("approval.requested",),
    ActivityKind.APPROVAL_DECIDED: ("approval.decided",),
    ActivityKind.ACCESS_CHANGED: ("access.granted", "access.changed", "access.revoked", "access.expired"),
    ActivityKind.SHARE_LINK_CHANGED: ("link.created", "link.revoked"),
    ActivityKind.ANNOTATION_CHANGED: (
        *("annotation.created", "annotation.commented", "annotation.edited", "annotation.deleted"),
        *("annotation.resolved", "annotation.reopened", "annotation.reacted", "annotation.labelled"),
    ),
    ActivityKind.SCORE_CHANGED: ("score.recorded", "score.deleted"),
    ActivityKind.MESSAGE_REDACTED: ("message.redacted",),
    ActivityKind.HANDOFF_CHANGED: (
        *("handoff.offered", "handoff.accepted", "handoff.declined"),
        *("handoff.cancelled", "handoff.undone", "handoff.expired"),
    ),
}
_RARE_KINDS = set(_NAMES) - {ActivityKind.MESSAGE_SENT, ActivityKind.SESSION_STATUS_CHANGED}
_BY_NAME = {f"quarterdeck.{name}": kind for kind, names in _NAMES.items() for name in names}

INDEXED = (
    "type NOT IN ('STEP_STARTED', 'TEXT_MESSAGE_START', 'TOOL_CALL_ARGS', 'TOOL_CALL_END') "
    "AND coalesce(name, '') NOT IN ('quarterdeck.run.queued', 'quarterdeck.message.copied')"
)
"""What the feed's indexes leave out: events that are never activities, and come in numbers. A statement that is to use
these indexes has the same words in its WHERE."""

RARE = (
    "type = 'CUSTOM' AND name NOT IN ('quarterdeck.message.sent', 'quarterdeck.session.status', "
    "'quarterdeck.run.queued', 'quarterdeck.message.copied')"
)
"""What has an index by name: what happens now and then, and would else be looked for among all that happens often."""

COLUMNS = ", ".join(
    f"session_events.{name}"
    for name in (
        *("session_id", "seq", "organization_id", "at", "type", "name", "run_id", "message_id", "tool_execution_id"),
        *("approval_id", "actor_kind", "actor_id", "on_behalf_of"),
    )
) + (", session_events.data - '{text,content}'::text[] AS data")
"""Of an ActivityRow. Messages' texts and tools' results are read through the objects that they belong to."""


def kind_of(event: Event) -> ActivityKind | None:
    """What kind of activity an event is; None for one that is none, as a run that comes to wait for a decision: its
    request was told before."""
    if event.type == "CUSTOM":
        return _BY_NAME.get(event.name or "")
    kind = _BY_TYPE.get(event.type)
    if kind is ActivityKind.RUN_ENDED and event.data.get("outcome") == "interrupt":
        return None
    return kind


def may_be_activity(type_: str, name: str | None) -> bool:
    """Whether events so called can be activities."""
    return type_ in _BY_TYPE or (name or "") in _BY_NAME


def is_rare(kinds: Iterable[ActivityKind]) -> bool:
    """Whether all events of these kinds are in the index of rare ones."""
    return set(kinds) <= _RARE_KINDS


def events_of(kinds: Iterable[ActivityKind]) -> tuple[list[str], list[str]]:
    """The types and the names of the events of some kinds of activity."""
    wanted = set(kinds)
    return (
        [type_ for type_, kind in _BY_TYPE.items() if kind in wanted],
        [name for name, kind in _BY_NAME.items() if kind in wanted],
    )


def in_team(team: str) -> str:
    """SQL: which `sessions` are a team's: those of its members, and those shared with it. `team` is an expression that
    compares: `= $1`; it stands there twice.

    A union of sets of ids, so that each has its index.
    """
    return (
        "sessions.id IN (SELECT of_member.id FROM sessions of_member "
        "JOIN team_members ON team_members.user_id = of_member.owner_id "
        f"WHERE team_members.team_id {team} "
        f"UNION ALL SELECT to_team.resource_id FROM grants to_team WHERE to_team.team_id {team} "
        f"AND to_team.resource_kind = '{SESSION}' AND {living('to_team')})"
    )
