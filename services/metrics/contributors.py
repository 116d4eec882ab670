"""Who is behind figures, day by day: what decides who is hidden among others, for whatever part of a day is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.metrics.calendar import BUCKETS, BucketName
from services.metrics.engine import MetricScope, read

_DAY = timedelta(days=1)


async def of_days(
    scope: MetricScope,
    metric: str,
    start: datetime,
    end: datetime,
    filter: Mapping[str, Sequence[str | None]] | None = None,
) -> list[Set[UUID]]:
    """The users with facts on each day in UTC that a range has a part in. A range that has a day in it hides whoever
    that day alone hides: so what is asked of more days is no way to those who are hidden on one."""
    rows = await read(
        scope,
        metric,
        start=_midnight(start),
        end=_midnight(end + _DAY - timedelta(microseconds=1)),
        bucket=BUCKETS[BucketName.DAY],
        filter=filter,
        group_by=("user",),
    )
    found: dict[datetime, set[UUID]] = {}
    for row in rows.rows:
        [user] = row.labels
        if row.count and user is not None:
            found.setdefault(row.at, set()).add(UUID(user))
    return list(found.values())


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
