"""Working together in a session: one stream of all that happens, and of who is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Any, TypeVar, cast

import strawberry

from core.ids import decode
from core.permissions import Permission
from models.activity_feed import kind_of
from resolvers import annotations as annotation_reads
from schema.activities import Activity
from schema.annotations import AnnotationThread
from schema.fields import Info, column, nested, object_type, subscription
from schema.presence import Participant, PresenceDraft
from schema.scalars import Cursor
from schema.session_writes import SessionEvent
from subscriptions import workspace_stream as streams

T = TypeVar("T")


def _made_of(source: type) -> Callable[[type[T]], type[T]]:
    """A type of the items that are of this class."""

    def decorate(cls: type[T]) -> type[T]:
        cls.is_type_of = classmethod(lambda _, value, info: isinstance(value, source))  # type: ignore[attr-defined]
        return object_type(cls)

    return decorate


@_made_of(streams.WorkspaceEvent)
class WorkspaceEvent:
    """Something that happened in the session. Each event of its log comes once; text in progress goes between."""

    cursor: Cursor = column("Pass the last one as `after` to go on from there.")
    event: SessionEvent = column("What happened, as `sessionEvents` tells it.")

    @strawberry.field(description="The same as an activity, where somebody did something worth a line in the feed.")
    def activity(root: Any) -> Activity | None:
        return root.event if kind_of(root.event) is not None else None

    @nested(annotation_reads.thread_of_events)
    def annotation(self) -> AnnotationThread | None:
        """The annotation it is about, as it now is."""


@_made_of(streams.WorkspacePresence)
class WorkspacePresence:
    """Who is in the session: all of them at first, then what changed since, at most four times a second."""

    cursor: Cursor | None = column("The last event's, unchanged: presence is not stored.")

    @strawberry.field(description="Everybody who is there, in the first of these items; null in those that follow.")
    def participants(root: Any) -> list[Participant] | None:
        return root.change.participants  # type: ignore[no-any-return]

    @strawberry.field(description="Who came.")
    def joined(root: Any) -> list[Participant]:
        return root.change.joined  # type: ignore[no-any-return]

    @strawberry.field(description="Who does something else, or looks at another message.")
    def changed(root: Any) -> list[Participant]:
        return root.change.changed  # type: ignore[no-any-return]

    @strawberry.field(description="Who left, as they were last.")
    def left(root: Any) -> list[Participant]:
        return root.change.left  # type: ignore[no-any-return]


@_made_of(streams.WorkspaceDraft)
class WorkspaceDraft:
    """What people in the session are about to say: the latest of each."""

    cursor: Cursor | None = column("The last event's, unchanged: drafts are not stored.")
    drafts: list[PresenceDraft] = column("The drafts that are new.")


WorkspaceItem = Annotated[
    WorkspaceEvent | WorkspacePresence | WorkspaceDraft,
    strawberry.union(
        name="WorkspaceItem", description="What is told to those who are in a session: an event, presence, or drafts."
    ),
]


@strawberry.type
class WorkspaceSubscription:
    @subscription(Permission.SESSIONS_READ)
    async def workspace(
        info: Info,
        session_id: Annotated[strawberry.ID, strawberry.argument(description="The session.")],
        after: Annotated[
            Cursor | None,
            strawberry.argument(
                description="Go on after this cursor, of an item or of `sessionEvents`. Left out, from the session's "
                "first event."
            ),
        ] = None,
        client_id: Annotated[
            str | None,
            strawberry.argument(
                description="What this client calls itself, for `updatePresence`: up to 64 letters, digits and "
                ". _ : - characters. Left out, one is made up."
            ),
        ] = None,
    ) -> AsyncGenerator[WorkspaceItem, None]:
        """Be in a session: everything that happens in it and who else is there, on one cursor. While the subscription
        lives, others see you. Reconnect with the last cursor, and no event is lost or repeated."""
        session = decode("ses", session_id, field="sessionId")
        stream = streams.workspace(info.context.actor, session, after, client_id)
        async with aclosing(cast(Any, stream)) as items:
            async for item in items:
                yield item
