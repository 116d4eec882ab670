"""The activity feed in the graph: read by time, and followed live."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, cast

import strawberry

from core.errors import BadInput
from core.ids import decode
from core.permissions import Permission
from resolvers import activity_feed as feeds
from schema.activities import Activity
from schema.activity_filter import FeedFilter, OldestFirst, wanted
from schema.connections import After, Connection, First
from schema.fields import Info, column, object_type, query, subscription
from schema.scalars import Cursor
from subscriptions import activity_feed as streams


@object_type
class ActivityItem:
    """An activity of a feed that is followed."""

    cursor: Cursor = column("Pass the last one as `after` to go on from there.")
    activity: Activity = column("What was done.")


@strawberry.type
class ActivityFeedQuery:
    @query(Permission.SESSIONS_READ)
    async def activity_feed(
        info: Info,
        first: First = None,
        after: After = None,
        filter: FeedFilter = None,
        oldest_first: OldestFirst = False,
    ) -> Connection[Activity]:
        """Who did what in the sessions that you may see, by time."""
        return await feeds.feed(
            info.context.actor, wanted(filter), first=first, after=after, descending=not oldest_first
        )

    @query(Permission.SESSIONS_READ)
    async def activity_feed_cursor(info: Info) -> Cursor:
        """The place to follow the feed from: read this, then the feed, then the subscription `activityFeed(after:)`,
        and you miss nothing."""
        return Cursor(await streams.current_cursor())


@strawberry.type
class ActivityFeedSubscription:
    @subscription(Permission.SESSIONS_READ)
    async def activity_feed(
        info: Info,
        filter: FeedFilter = None,
        session_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only what happens in this session.")
        ] = None,
        team_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only what happens in the sessions of this team.")
        ] = None,
        after: Annotated[
            Cursor | None,
            strawberry.argument(
                description="Go on after this cursor. Left out, from now on; of a session, from its begin. A session's "
                "feed takes the cursors of its events, `lastEventCursor`, and those of `Session.activity`."
            ),
        ] = None,
    ) -> AsyncGenerator[ActivityItem, None]:
        """Who does what, as it happens, in the sessions that you may see. Reconnect with the last cursor, and nothing
        is lost or repeated."""
        actor, matches = info.context.actor, wanted(filter).matches
        if session_id is not None and team_id is not None:
            raise BadInput("Follow a session or a team, not both.", field="teamId")
        if session_id is not None:
            stream = streams.activity_of_session(actor, decode("ses", session_id, field="sessionId"), matches, after)
        else:
            team = decode("team", team_id, field="teamId") if team_id is not None else None
            if team is not None:
                actor.require(Permission.MEMBERS_READ)
            stream = streams.activity_feed(actor, matches, after, team_id=team)
        async with aclosing(cast(Any, stream)) as items:
            async for item in items:
                yield item
