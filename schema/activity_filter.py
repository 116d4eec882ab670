"""What an activity feed is asked by."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry

from core.permissions import Actor
from models import activity_feed as models
from resolvers.activity_feed import ActivityFilter as Wanted
from resolvers.reading import Batch
from schema.actors import ActorKind
from schema.fields import decode_ids, enum_type, input_type

ActivityKind = enum_type(
    models.ActivityKind,
    {
        "SESSION_CREATED": "A session was made.",
        "SESSION_FORKED": "A session was made that goes on from another one.",
        "SESSION_UPDATED": "A session's title, labels, visibility, options or servers were changed.",
        "SESSION_STATUS_CHANGED": "A session was paused, resumed, completed, …, or followed its runs.",
        "MESSAGE_SENT": "Somebody sent a message to the agent.",
        "AGENT_REPLIED": "The agent completed a message.",
        "RUN_STARTED": "A worker began a run, or went on with it after a decision.",
        "RUN_ENDED": "A run finished, was stopped, or failed.",
        "TOOL_CALLED": "The agent asked for a tool.",
        "TOOL_RETURNED": "A tool gave its result, or did not run.",
        "APPROVAL_REQUESTED": "A tool call waits for a decision.",
        "APPROVAL_DECIDED": "A decision was made, or came too late to be made.",
        "ACCESS_CHANGED": "Somebody was given or lost access to a session.",
        "SHARE_LINK_CHANGED": "A link that gives access was made or revoked.",
        "ANNOTATION_CHANGED": "Something was said in a comment, or done to one.",
        "SCORE_CHANGED": "A session or something in it was scored, or a score was taken away.",
        "MESSAGE_REDACTED": "A part of a message was taken out.",
        "HANDOFF_CHANGED": "A session was offered to somebody, and what became of it.",
    },
)


@input_type
class ActivityFilter:
    """Which activities. Conditions that are left out take everything."""

    kind: list[ActivityKind] | None = strawberry.field(default=None, description="Of one of these kinds.")
    actor_id: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Done by one of these users, or by an agent in their name."
    )
    actor_kind: list[ActorKind] | None = strawberry.field(default=None, description="Done by one of these.")
    since: datetime | None = strawberry.field(default=None, description="At or after this time.")
    until: datetime | None = strawberry.field(default=None, description="Before this time.")

    def checked(self) -> Wanted:
        """What the reads take."""
        return Wanted(
            kinds=self.kind,
            actor_ids=decode_ids("User", self.actor_id, "filter.actorId"),
            actor_kinds=self.actor_kind,
            since=self.since,
            until=self.until,
        )


FeedFilter = Annotated[ActivityFilter | None, strawberry.argument(description="Which ones.")]


def wanted(filter_: ActivityFilter | None) -> Wanted:
    """The filter that was given, checked; or the one that takes everything."""
    return filter_.checked() if filter_ else Wanted()


def feed_by(batch: Batch) -> Batch:
    """The batch function of a feed, for a field with `first`, `after`, `filter` and `oldest_first`."""

    async def checked(actor: Actor, parents: Any, args: dict[str, Any]) -> list[Any]:
        plain = {"first": args["first"], "after": args["after"]}
        return await batch(
            actor, parents, plain | {"filter": wanted(args["filter"]), "descending": not args["oldest_first"]}
        )

    return checked


OldestFirst = Annotated[bool, strawberry.argument(description="Begin with the oldest.")]
