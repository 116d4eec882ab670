"""Who is in a session, in the graph."""

from __future__ import annotations

from datetime import datetime

import strawberry

from core.ids import decode
from core.permissions import Permission
from resolvers import presence as reads
from resolvers import sessions as session_reads
from schema.fields import Info, column, enum_type, id_column, input_type, mutation, nested, object_type
from schema.sessions import LazyUser, Message
from services.presence import participants as models
from services.presence.rooms import presence

PresenceState = enum_type(
    models.PresenceState,
    {
        "VIEWING": "They look at it.",
        "TYPING": "They write something. It becomes VIEWING six seconds after their last word.",
        "IDLE": "They have it open, and do something else.",
    },
)


@object_type
class Participant:
    """Somebody who is in a session, with one of their clients. Nothing of it is stored."""

    user_id: strawberry.ID = id_column("User", "Who it is.", name="user_id")
    client_id: str = column("Which of their clients: a tab, a phone.")
    state: PresenceState = column("What they do.")
    message_id: strawberry.ID | None = id_column("Message", "The message that they look at.", name="message_id")
    since: datetime = column("Since when they are there, to about a second.")

    @nested(reads.users_of_participants)
    def user(self) -> LazyUser | None:
        """Who it is. Others than oneself are told to those who may read members."""

    @nested(session_reads.message_of)
    def message(self) -> Message | None:
        """The message that they look at."""


@object_type
class PresenceCursor:
    """A place or a range in a text, counted in characters."""

    message_id: strawberry.ID | None = id_column(
        "Message", "The message; null where it is in their own draft.", name="message_id"
    )
    start: int = column("Where it begins.")
    end: int = column("Where it ends; the same for a place.")


@object_type
class PresenceDraft:
    """What somebody is about to say. Drop it when they send, leave, or are TYPING no more. It is not stored."""

    user_id: strawberry.ID = id_column("User", "Who it is.", name="user_id")
    client_id: str = column("With which of their clients.")
    text: str | None = column("The text so far.")
    cursor: PresenceCursor | None = column("Where they are, in it or in a message.")

    @nested(reads.users_of_participants)
    def user(self) -> LazyUser | None:
        """Who it is. Others than oneself are told to those who may read members."""


@input_type
class PresenceCursorInput:
    """A place or a range in a text, counted in characters."""

    message_id: strawberry.ID | None = strawberry.field(
        default=None, description="The message; left out, it is in the draft."
    )
    start: int = strawberry.field(description="Where it begins.")
    end: int = strawberry.field(description="Where it ends; the same for a place.")


@input_type
class UpdatePresenceInput:
    """What you do in a session. Send it when that changes; while you type, every few seconds again."""

    session_id: strawberry.ID = strawberry.field(description="The session.")
    client_id: str = strawberry.field(
        description="The same as given to `workspace`: up to 64 letters, digits and . _ : - characters."
    )
    state: PresenceState = strawberry.field(description="What you do.")
    message_id: strawberry.ID | None = strawberry.field(default=None, description="The message that you look at.")
    cursor: PresenceCursorInput | None = strawberry.field(default=None, description="Where you are in a text.")
    draft: str | None = strawberry.field(
        default=None, description="What you are about to say: up to 2,000 characters. Others in the session see it."
    )


@object_type
class UpdatePresencePayload:
    """You, as others see you."""

    participant: Participant = strawberry.field(description="You, with this client.")


@strawberry.type
class PresenceMutation:
    @mutation(Permission.SESSIONS_READ)
    async def update_presence(info: Info, input: UpdatePresenceInput) -> UpdatePresencePayload:
        """Say what you do in a session, to others who are in it. Nothing is stored. At most 20 times a second; without
        a `workspace` stream of this client you are gone 30 seconds after the last time."""
        at = input.cursor
        participant = await presence.update(
            info.context.actor,
            decode("ses", input.session_id, field="sessionId"),
            input.client_id,
            input.state,
            message_id=decode("msg", input.message_id, field="messageId") if input.message_id else None,
            draft=input.draft,
            cursor=models.TextCursor(
                decode("msg", at.message_id, field="cursor.messageId") if at.message_id else None, at.start, at.end
            )
            if at
            else None,
        )
        return UpdatePresencePayload(participant=participant)
