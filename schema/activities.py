"""Activities in the graph: one type for each kind of thing that somebody does in a session."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import strawberry

from models import activity_feed as models
from models.activity_feed import kind_of
from resolvers import activity_feed as feeds
from resolvers import sessions as reads
from resolvers.identity import user_in
from schema.activity_filter import ActivityKind
from schema.actors import ActorKind
from schema.fields import column, enum_type, nested, object_type
from schema.scalars import BigInt
from schema.sessions import Approval, ApprovalStatus, LazyUser, Message, Run, Session, SessionStatus, ToolExecution

if TYPE_CHECKING:
    from schema.identity import Team

T = TypeVar("T")
LazyTeam = Annotated["Team", strawberry.lazy("schema.identity")]


class RunOutcome(StrEnum):
    """How a run ended."""

    SUCCESS = "SUCCESS"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


enum_type(
    RunOutcome,
    {"SUCCESS": "It finished.", "CANCELLED": "Somebody stopped it.", "FAILED": "It ended by an error."},
)


class AccessChange(StrEnum):
    """What happened to somebody's access."""

    GRANTED = "GRANTED"
    CHANGED = "CHANGED"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"


enum_type(
    AccessChange,
    {
        "GRANTED": "It was given.",
        "CHANGED": "Its level or its end was changed.",
        "REVOKED": "It was taken away.",
        "EXPIRED": "Its time was over.",
    },
)


class ShareLinkChange(StrEnum):
    """What happened to a link."""

    CREATED = "CREATED"
    REVOKED = "REVOKED"


enum_type(ShareLinkChange, {"CREATED": "It was made.", "REVOKED": "It gives access to nobody any more."})


class AnnotationChange(StrEnum):
    """What happened to an annotation."""

    CREATED = "CREATED"
    COMMENTED = "COMMENTED"
    EDITED = "EDITED"
    DELETED = "DELETED"
    RESOLVED = "RESOLVED"
    REOPENED = "REOPENED"
    REACTED = "REACTED"
    LABELLED = "LABELLED"


enum_type(
    AnnotationChange,
    {
        "CREATED": "A thread was begun.",
        "COMMENTED": "Somebody replied.",
        "EDITED": "A comment was changed.",
        "DELETED": "A comment was taken away.",
        "RESOLVED": "The thread was closed.",
        "REOPENED": "The thread was opened again.",
        "REACTED": "Somebody reacted to a comment, or took the reaction back.",
        "LABELLED": "The thread's labels were changed.",
    },
)


class ScoreChange(StrEnum):
    """What happened to a score."""

    RECORDED = "RECORDED"
    DELETED = "DELETED"


enum_type(ScoreChange, {"RECORDED": "It was given, or given anew.", "DELETED": "It was taken away."})


class HandoffChange(StrEnum):
    """What became of a handoff."""

    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    DECLINED = "DECLINED"
    CANCELLED = "CANCELLED"
    UNDONE = "UNDONE"
    EXPIRED = "EXPIRED"


enum_type(
    HandoffChange,
    {
        "OFFERED": "The owner offers the session.",
        "ACCEPTED": "It has a new owner.",
        "DECLINED": "It was not wanted.",
        "CANCELLED": "The offer was taken back.",
        "UNDONE": "The old owner has it again.",
        "EXPIRED": "Nobody answered in time.",
    },
)


@strawberry.interface(description="Something that somebody did in a session. `session` and `seq` identify it.")
class Activity:
    seq: BigInt = column("The number of the event: its place in the session.")
    at: datetime = column("When.")
    actor_kind: ActorKind = column("Whether a person, a service account, an agent, or Quarterdeck itself did it.")

    @strawberry.field(description="What was done.")
    def kind(root: Any) -> ActivityKind:
        return kind_of(root)

    @nested(user_in("actor_id"))
    def actor(self) -> LazyUser | None:
        """Who did it; for an agent, in whose name it acts. Null for Quarterdeck itself."""

    @nested(user_in("on_behalf_of"))
    def on_behalf_of(self) -> LazyUser | None:
        """For an agent, whose message made it act."""

    @nested(reads.session_of)
    def session(self) -> Session:
        """The session it happened in, as it now is."""

    @classmethod
    def resolve_type(cls, value: Any, *_: Any) -> str:
        """The name of the type of an event: that of its kind."""
        return _NAME_OF[kind_of(value)]  # type: ignore[index]


ACTIVITIES: list[type] = []
"""The types of activities, for the schema."""

_NAME_OF: dict[models.ActivityKind, str] = {}


def _activity(kind: models.ActivityKind) -> Callable[[type[T]], type[T]]:
    """The type of the events that are activities of this kind."""

    def decorate(cls: type[T]) -> type[T]:
        cls.is_type_of = classmethod(lambda _, value, info: kind_of(value) is kind)  # type: ignore[attr-defined]
        found = object_type(cls)
        _NAME_OF[kind] = cls.__name__
        ACTIVITIES.append(found)
        return found

    return decorate


def _body(description: str, key: str, make: Callable[[Any], Any] = lambda value: value) -> Any:
    """A field that is in the event's body."""

    def shown(data: dict[str, Any]) -> Any:
        value = data.get(key)
        return None if value is None else make(value)

    return column(description, name="data", show=shown)


def _change(description: str, changes: type[StrEnum]) -> Any:
    """A field that says what the event's name ends with."""
    return column(description, name="name", show=lambda name: changes[name.rpartition(".")[2].upper()])


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


K = models.ActivityKind


@_activity(K.SESSION_CREATED)
class SessionCreated(Activity):
    """A session was made."""

    title: str | None = _body("What it was called then.", "title")
    runtime: str | None = _body("What drives its agent.", "runtime")


@_activity(K.SESSION_FORKED)
class SessionForked(Activity):
    """A session was made that goes on from another one."""

    @nested(feeds.fork_source_named)
    def forked_from(self) -> Session | None:
        """The other one; null where you may not see it."""


@_activity(K.SESSION_UPDATED)
class SessionUpdated(Activity):
    """A session was changed."""

    changed: list[str] = _body("The fields that were changed.", "changed", lambda names: [_camel(n) for n in names])


@_activity(K.SESSION_STATUS_CHANGED)
class SessionStatusChanged(Activity):
    """A session came to another status, by what somebody decided or by its runs."""

    previous_status: SessionStatus | None = _body("What it was before.", "from")
    new_status: SessionStatus | None = _body("What it became.", "to")


@_activity(K.MESSAGE_SENT)
class MessageSent(Activity):
    """Somebody sent a message to the agent."""

    @nested(reads.message_of)
    def message(self) -> Message | None:
        """The message."""

    @nested(reads.run_of)
    def run(self) -> Run | None:
        """The run that answers it."""


@_activity(K.AGENT_REPLIED)
class AgentReplied(Activity):
    """The agent completed a message, or was cut off in it."""

    @nested(reads.message_of)
    def message(self) -> Message | None:
        """The message."""

    @nested(reads.run_of)
    def run(self) -> Run | None:
        """The run it belongs to."""


@_activity(K.RUN_STARTED)
class RunStarted(Activity):
    """A worker began a run, or went on with it after a decision."""

    segment: int | None = _body("1 at its begin, and one more with each time that it went on.", "segment")

    @nested(reads.run_of)
    def run(self) -> Run | None:
        """The run."""


@_activity(K.RUN_ENDED)
class RunEnded(Activity):
    """A run ended."""

    @strawberry.field(description="How.")
    def outcome(root: Any) -> RunOutcome:
        if root.type == "RUN_ERROR":
            return RunOutcome.FAILED
        return RunOutcome.CANCELLED if root.data.get("outcome") == "cancelled" else RunOutcome.SUCCESS

    @strawberry.field(description="Why it did not finish; null where it did.")
    def reason(root: Any) -> str | None:
        return root.data.get("message") or root.data.get("reason")  # type: ignore[no-any-return]

    @nested(reads.run_of)
    def run(self) -> Run | None:
        """The run."""


@_activity(K.TOOL_CALLED)
class ToolCalled(Activity):
    """The agent asked for a tool."""

    tool: str | None = _body("`server.tool`, or the name of a built-in tool.", "toolCallName")

    @nested(reads.tool_execution_of)
    def tool_execution(self) -> ToolExecution | None:
        """The call, as it now is."""

    @nested(reads.run_of)
    def run(self) -> Run | None:
        """The run it belongs to."""


@_activity(K.TOOL_RETURNED)
class ToolReturned(Activity):
    """A tool gave its result, failed, or was not let run."""

    failed: bool | None = _body("Whether it failed or did not run.", "isError")
    duration_ms: int | None = _body("How long it ran, in milliseconds; null where it did not.", "durationMs")

    @nested(reads.tool_execution_of)
    def tool_execution(self) -> ToolExecution | None:
        """The call, as it now is."""

    @nested(reads.run_of)
    def run(self) -> Run | None:
        """The run it belongs to."""


@_activity(K.APPROVAL_REQUESTED)
class ApprovalRequested(Activity):
    """A tool call waits for a decision."""

    tool: str | None = _body("The tool that is to be called.", "tool")

    @nested(reads.approval_of)
    def approval(self) -> Approval | None:
        """The decision that is asked for, as it now is."""

    @nested(reads.run_of)
    def run(self) -> Run | None:
        """The run that waits."""


@_activity(K.APPROVAL_DECIDED)
class ApprovalDecided(Activity):
    """A decision was made, or is not waited for any more."""

    decision: ApprovalStatus | None = _body("What became of it.", "status")
    note: str | None = _body("What the decider said about it.", "note")

    @nested(reads.approval_of)
    def approval(self) -> Approval | None:
        """The decision."""

    @nested(reads.run_of)
    def run(self) -> Run | None:
        """The run that waited."""


@_activity(K.ACCESS_CHANGED)
class AccessChanged(Activity):
    """Somebody was given or lost access to a session."""

    access_change: AccessChange = _change("What happened.", AccessChange)
    level: str | None = _body("What they may do with it: READ, WRITE or ADMIN.", "level")
    previous_level: str | None = _body("What they could do with it before.", "previousLevel")

    @nested(feeds.user_named("userId"))
    def user(self) -> LazyUser | None:
        """Whose access it is; null where it is a team's."""

    @nested(feeds.team_named)
    def team(self) -> LazyTeam | None:
        """The team whose access it is; null where it is a user's."""


@_activity(K.SHARE_LINK_CHANGED)
class ShareLinkChanged(Activity):
    """A link that gives access was made or revoked."""

    link_change: ShareLinkChange = _change("What happened.", ShareLinkChange)
    link_id: strawberry.ID | None = _body("The link.", "linkId")
    level: str | None = _body("What it lets people do: READ, WRITE or ADMIN.", "level")


@_activity(K.ANNOTATION_CHANGED)
class AnnotationChanged(Activity):
    """Something was said in a comment, or done to one."""

    annotation_change: AnnotationChange = _change("What happened.", AnnotationChange)
    thread_id: strawberry.ID | None = _body("The thread.", "threadId")
    comment_id: strawberry.ID | None = _body("The comment.", "commentId")

    @nested(feeds.message_named)
    def message(self) -> Message | None:
        """The message it is about; null where it is about the session."""


@_activity(K.SCORE_CHANGED)
class ScoreChanged(Activity):
    """A session or something in it was scored, or a score was taken away."""

    score_change: ScoreChange = _change("What happened.", ScoreChange)
    name: str | None = _body("What was scored.", "name")
    score_id: strawberry.ID | None = _body("The score.", "scoreId")

    @nested(feeds.message_named)
    def message(self) -> Message | None:
        """The message it is about; null where it is about the session."""


@_activity(K.MESSAGE_REDACTED)
class MessageRedacted(Activity):
    """A part of a message was taken out."""

    @nested(feeds.message_named)
    def message(self) -> Message | None:
        """The message, as it now is."""


@_activity(K.HANDOFF_CHANGED)
class HandoffChanged(Activity):
    """A session was offered to somebody, or what became of the offer."""

    handoff_change: HandoffChange = _change("What happened.", HandoffChange)
    handoff_id: strawberry.ID | None = _body("The handoff.", "handoffId")

    @nested(feeds.user_named("fromId"))
    def from_user(self) -> LazyUser | None:
        """Whose session it was."""

    @nested(feeds.user_named("toId"))
    def to_user(self) -> LazyUser | None:
        """To whom it was offered."""
