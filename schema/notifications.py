"""Notifications in the graph: an inbox, how one wants to be told, and what comes, live."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import strawberry

from core.errors import BadInput
from core.permissions import Actor, Permission
from models import notifications as models
from resolvers import notifications as reads
from resolvers.identity import user_in
from resolvers.reading import needing
from resolvers.sessions import session_of
from schema.actors import ActorKind
from schema.fields import (
    Info,
    Node,
    column,
    decode_ids,
    entity,
    enum_type,
    input_type,
    mutation,
    nested,
    object_type,
    subscription,
)
from schema.scalars import Cursor
from schema.sessions import LazyUser, Session
from services.notifications import inbox as services
from services.notifications.preferences import PreferenceChange, update_preferences
from subscriptions.notifications import notification_changes

NotificationKind = enum_type(
    models.NotificationKind,
    {
        "MENTION": "Somebody mentioned you in a comment.",
        "REPLY": "Somebody answered in a thread that you wrote in.",
        "SHARE": "A session was shared with you.",
        "HANDOFF": "A session is offered to you, or an offer of yours was answered.",
        "APPROVAL_WANTED": "A tool call waits for your decision.",
        "RUN_FINISHED": "A run that you started failed, or is done after more than half a minute.",
        "BUDGET": "A budget is used up, or comes close to it.",
        "REPORT": "A report of yours, or one for you, is ready or could not be made.",
        "MONITOR": "An incident of a monitor began, lasts, or is over; or a monitor or a channel of yours stopped.",
    },
)
EmailMode = enum_type(
    models.EmailMode,
    {
        "OFF": "No mail.",
        "IMMEDIATE": "A mail of its own, at once.",
        "DIGEST": "Together with others in one mail, about hourly, if you have not read it by then.",
    },
)


class NotificationChangeKind(StrEnum):
    """What happened to a notification."""

    CREATED = "CREATED"
    READ = "READ"


enum_type(NotificationChangeKind, {"CREATED": "It came, and is unread.", "READ": "It was read, here or elsewhere."})


@entity(models.NotificationRow)
class Notification(Node):
    """Something that you were told. Nobody else can read it."""

    kind: NotificationKind = column("Why you were told.")
    created_at: datetime = column("When it came.")
    read_at: datetime | None = column("When you read it; null for unread.")
    actor_kind: ActorKind = column("What did it.")

    @nested(reads.title_of)
    def title(self) -> str:
        """What happened, in one line; where you may not see the session any more, that."""

    @nested(reads.body_of)
    def body(self) -> str:
        """More of it as plain text; may be empty, and is where you may not see the session any more."""

    @nested(session_of)
    def session(self) -> Session | None:
        """The session it happened in; null where there is none, or where you may not see it (any more)."""

    @nested(user_in("actor_id"))
    def actor(self) -> LazyUser | None:
        """Who did it; for an agent, in whose name it acts; for a monitor, whose it is; null for Quarterdeck itself."""

    @nested(reads.subject_of)
    def subject(self) -> Node | None:
        """What it is about; null where you may not see that (any more)."""


@object_type
class NotificationPreference:
    """How you are told of one kind."""

    kind: NotificationKind = column("Of what.")
    in_app: bool = column("Whether it comes into the inbox.")
    email: EmailMode = column("Whether, and when, it comes by e-mail; where the installation has a mail server.")


@input_type
class NotificationFilter:
    """Which notifications to list. Conditions that are left out take everything."""

    unread_only: bool = strawberry.field(default=False, description="Only those that you have not read.")
    kinds: list[NotificationKind] | None = strawberry.field(default=None, description="Of one of these kinds.")


async def _inbox(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    given = args.get("filter")
    wanted = reads.NotificationFilter(given.unread_only, given.kinds) if given else reads.NotificationFilter()
    page = await reads.notifications(actor, wanted, first=args.get("first"), after=args.get("after"))
    return [page] * len(parents)


async def _unread_count(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    return [await reads.unread_count(actor)] * len(parents)


async def _cursor(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    return [await services.current_cursor()] * len(parents)


async def _preferences(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    return [await reads.preferences(actor)] * len(parents)


# The viewer's, as batch functions.
inbox = needing(Permission.NOTIFICATIONS_MANAGE, _inbox)
unread_count = needing(Permission.NOTIFICATIONS_MANAGE, _unread_count)
notifications_cursor = needing(Permission.NOTIFICATIONS_MANAGE, _cursor)
preferences = needing(Permission.NOTIFICATIONS_MANAGE, _preferences)


@input_type
class MarkNotificationsReadInput:
    """What you have read: either some notifications, or all up to a place."""

    ids: list[strawberry.ID] | None = strawberry.field(default=None, description="Up to 100 notifications.")
    up_to: Cursor | None = strawberry.field(
        default=None,
        description="Everything up to this cursor, of the subscription `notifications` or from "
        "`viewer.notificationsCursor`. What came afterwards stays unread.",
    )


@object_type
class MarkNotificationsReadPayload:
    """What is left."""

    marked_count: int = strawberry.field(description="How many were unread before.")
    unread_count: int = strawberry.field(description="How many still are.")


@input_type
class NotificationPreferenceInput:
    """How to be told of a kind. What is left out stays."""

    kind: NotificationKind = strawberry.field(description="Of what.")
    in_app: bool | None = strawberry.field(default=None, description="Whether it comes into the inbox.")
    email: EmailMode | None = strawberry.field(default=None, description="Whether, and when, it comes by e-mail.")


@input_type
class UpdateNotificationPreferencesInput:
    """How you want to be told."""

    preferences: list[NotificationPreferenceInput] = strawberry.field(
        description="Each kind at most once; kinds that are left out stay as they are."
    )


@object_type
class NotificationPreferencesPayload:
    """How you are told from now on."""

    preferences: list[NotificationPreference] = strawberry.field(description="Of every kind.")


@object_type
class NotificationChange:
    """A notification that came, or was read."""

    cursor: Cursor = column("Pass the last one as `after` to go on from there.")
    kind: NotificationChangeKind = column("What happened.")
    notification: Notification = column("The notification, as it now is.")
    unread_count: int = column("How many of your notifications are unread now.")


@strawberry.type
class NotificationMutation:
    @mutation(Permission.NOTIFICATIONS_MANAGE)
    async def mark_notifications_read(info: Info, input: MarkNotificationsReadInput) -> MarkNotificationsReadPayload:
        """Mark notifications as read. Your other devices hear of it by the subscription."""
        actor = info.context.actor
        if (input.ids is None) == (input.up_to is None):
            raise BadInput("Give either `ids` or `upTo`.", field="ids")
        if input.up_to is not None:
            marked = await services.mark_read_up_to(actor, input.up_to)
        else:
            marked = await services.mark_read(actor, decode_ids("Notification", input.ids, "ids") or ())
        return MarkNotificationsReadPayload(marked_count=marked, unread_count=await reads.unread_count(actor))

    @mutation(Permission.NOTIFICATIONS_MANAGE)
    async def update_notification_preferences(
        info: Info, input: UpdateNotificationPreferencesInput
    ) -> NotificationPreferencesPayload:
        """Say what you want to be told, and how."""
        changes = [PreferenceChange(change.kind, change.in_app, change.email) for change in input.preferences]
        return NotificationPreferencesPayload(preferences=await update_preferences(info.context.actor, changes))


@strawberry.type
class NotificationSubscription:
    @subscription(Permission.NOTIFICATIONS_MANAGE)
    async def notifications(
        info: Info,
        after: Annotated[
            Cursor | None, strawberry.argument(description="Go on after this cursor. Left out, from now on.")
        ] = None,
    ) -> AsyncGenerator[NotificationChange, None]:
        """Your notifications as they come, and as they are read elsewhere. Reconnect with the last cursor, and nothing
        is lost."""
        async for change in notification_changes(info.context.actor, after):
            yield change
