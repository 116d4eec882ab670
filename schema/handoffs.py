"""Handoffs in the graph: a session is offered to somebody, who takes it over or not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import strawberry

from core.ids import decode
from core.permissions import Actor, Permission
from models import handoffs as models
from resolvers import handoffs as reads
from resolvers.identity import user_in
from resolvers.reading import needing
from resolvers.sessions import session_of
from schema.fields import Info, Node, column, entity, enum_type, input_type, mutation, nested, object_type
from schema.sessions import LazyUser, Session
from services import handoffs as services

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."

HandoffStatus = enum_type(
    models.HandoffStatus,
    {
        "OFFERED": "The receiver has not answered yet.",
        "ACCEPTED": "The session is the receiver's.",
        "DECLINED": "The receiver did not want it; `reply` may say why.",
        "CANCELLED": "The offer was taken back.",
        "EXPIRED": "Nobody answered in time.",
        "UNDONE": "It was accepted, and then the session was given back.",
    },
)
HandoffDirection = enum_type(
    reads.HandoffDirection,
    {"INCOMING": "Offered to you.", "OUTGOING": "Of your sessions, or offered by you in their owner's place."},
)


@entity(models.HandoffRow)
class Handoff(Node):
    """An offer to take over a session, with everything that waits in it. The session's creator stays who it was."""

    status: HandoffStatus = column("Where it is.")
    session_title: str = column("What the session was called when it was offered; readable without access to it.")
    note: str = column("What the receiver is to know. Everybody who may see the session can read it.")
    reply: str | None = column("What the receiver said when they declined.")
    keep_access: bool = column("Whether the owner of before may still write in the session afterwards.")
    created_at: datetime = column("When it was offered.")
    expires_at: datetime = column("When the offer ends by itself.")
    ended_at: datetime | None = column("When it was accepted, declined, cancelled, or expired.")
    undo_until: datetime | None = column("Until when it can be undone; null where it was not accepted.")
    undone_at: datetime | None = column("When it was undone.")

    @nested(session_of)
    def session(self) -> Session | None:
        """The session; null where you may not see it (yet)."""

    @nested(user_in("giver_id"))
    def giver(self) -> LazyUser:
        """Whose session it was."""

    @nested(user_in("receiver_id"))
    def receiver(self) -> LazyUser:
        """To whom it is offered."""

    @nested(user_in("offered_by_id"))
    def offered_by(self) -> LazyUser:
        """Who offered it: the owner or an admin in their place; of a deactivated owner, whoever succeeded them."""


@input_type
class HandoffFilter:
    """Which handoffs to list. Conditions that are left out take everything."""

    direction: HandoffDirection | None = strawberry.field(default=None, description="To you, or from you.")
    status: list[HandoffStatus] | None = strawberry.field(default=None, description="In one of these.")


async def _handoffs(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    given = args.get("filter")
    wanted = reads.HandoffFilter(given.direction, given.status) if given else reads.HandoffFilter()
    page = await reads.handoffs(actor, wanted, first=args.get("first"), after=args.get("after"))
    return [page] * len(parents)


handoffs = needing(Permission.SESSIONS_READ, _handoffs)
"""The viewer's, as a batch function."""


@input_type
class OfferHandoffInput:
    """A session to hand over."""

    session_id: strawberry.ID = strawberry.field(description="The session.")
    to_user_id: strawberry.ID = strawberry.field(
        description="Who is to have it: anybody active in your organisation who may write. They need no access yet."
    )
    note: str = strawberry.field(default="", description="What they are to know, up to 2,000 characters.")
    keep_access: bool = strawberry.field(
        default=True,
        description="Whether the present owner may still write in it afterwards, "
        "for the longest time that the organisation lets access last.",
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class HandoffInput:
    """A handoff."""

    handoff_id: strawberry.ID = strawberry.field(description="Its id, `hof_…`.")


@input_type
class DeclineHandoffInput:
    """A handoff that is not wanted."""

    handoff_id: strawberry.ID = strawberry.field(description="Its id, `hof_…`.")
    note: str | None = strawberry.field(default=None, description="Why, up to 2,000 characters.")


@object_type
class HandoffPayload:
    """The handoff as it now is."""

    handoff: Handoff = strawberry.field(description="The handoff.")


@strawberry.type
class HandoffMutation:
    @mutation(Permission.SESSIONS_WRITE)
    async def offer_handoff(info: Info, input: OfferHandoffInput) -> HandoffPayload:
        """Offer a session to somebody else; for its owner and the organisation's admins: ADMIN access is not
        enough. One offer at a time."""
        row = await services.offer_handoff(
            info.context.actor,
            decode("ses", input.session_id, field="sessionId"),
            decode("usr", input.to_user_id, field="toUserId"),
            note=input.note,
            keep_access=input.keep_access,
            key=input.idempotency_key,
        )
        return HandoffPayload(handoff=row)

    @mutation(Permission.SESSIONS_WRITE)
    async def accept_handoff(info: Info, input: HandoffInput) -> HandoffPayload:
        """Take over a session that was offered to you, with the decisions that wait in it. A grant of your own to it
        ends. CONFLICT where whoever offered it is neither its owner nor an admin any more."""
        return HandoffPayload(handoff=await services.accept_handoff(info.context.actor, _id(input)))

    @mutation(Permission.SESSIONS_READ)
    async def decline_handoff(info: Info, input: DeclineHandoffInput) -> HandoffPayload:
        """Say no to a session that was offered to you."""
        row = await services.decline_handoff(info.context.actor, _id(input), note=input.note)
        return HandoffPayload(handoff=row)

    @mutation(Permission.SESSIONS_WRITE)
    async def cancel_handoff(info: Info, input: HandoffInput) -> HandoffPayload:
        """Take back an offer that nobody has answered yet; for the session's owner and the organisation's admins."""
        return HandoffPayload(handoff=await services.cancel_handoff(info.context.actor, _id(input)))

    @mutation(Permission.SESSIONS_WRITE)
    async def undo_handoff(info: Info, input: HandoffInput) -> HandoffPayload:
        """Give the session back within `undoUntil`; for whoever gave and whoever got it, unless it has moved on."""
        return HandoffPayload(handoff=await services.undo_handoff(info.context.actor, _id(input)))


def _id(input: Any) -> Any:
    return decode("hof", input.handoff_id, field="handoffId")
