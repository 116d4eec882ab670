"""What sessions did, by time."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

import strawberry

from core.permissions import Permission
from resolvers import activity as reads
from schema.fields import Info, column, enum_type, object_type, query
from schema.scalars import BigInt


class ActivityBucket(StrEnum):
    """The width of a point."""

    MINUTE = "MINUTE"
    HOUR = "HOUR"
    DAY = "DAY"


enum_type(ActivityBucket, {"MINUTE": "60 seconds.", "HOUR": "60 minutes.", "DAY": "24 hours, counted from `from`."})
_WIDTHS = {
    ActivityBucket.MINUTE: timedelta(minutes=1),
    ActivityBucket.HOUR: timedelta(hours=1),
    ActivityBucket.DAY: timedelta(days=1),
}


@object_type
class ActivityPoint:
    """What ended within one bucket of time."""

    at: datetime = column("When the bucket begins.")
    runs: int = column("Runs that ended.")
    failed_runs: int = column("Those of them that failed.")
    tool_calls: int = column("Calls of tools that ended.")
    failed_tool_calls: int = column("Those of them that failed.")
    tool_milliseconds: BigInt = column("How long the tools ran together, in milliseconds.")


@strawberry.type
class ActivityQuery:
    @query(Permission.SESSIONS_READ)
    async def activity(
        info: Info,
        from_: Annotated[
            datetime, strawberry.argument(name="from", description="Begin of the range, with its time zone.")
        ],
        to: Annotated[datetime, strawberry.argument(description="End of the range; not in it any more.")],
        bucket: Annotated[ActivityBucket, strawberry.argument(description="Width of a point.")] = ActivityBucket.HOUR,
    ) -> list[ActivityPoint]:
        """What the sessions that you may see did in a range of time: at most 1,000 points, empty ones included."""
        return await reads.activity(info.context.actor, from_, to, _WIDTHS[bucket])
