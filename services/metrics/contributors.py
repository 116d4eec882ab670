"""Who is behind figures, day by day: what decides who is hidden among others, for whatever part of a day is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from uuid import UUID

from core.errors import BadInput
from services.metrics.calendar import BUCKETS, BucketName
from services.metrics.engine import MetricScope, read

MOST_CELLS = 1_000_000
"""Days times people that are looked through for one range of a metric."""
CELLS_AT_ONCE = 50_000
"""Of one statement: others have their turn in between."""
_DAY = timedelta(days=1)


async def of_days(
    scope: MetricScope,
    metric: str,
    start: datetime,
    end: datetime,
    filter: Mapping[str, Sequence[str | None]] | None = None,
    *,
    people: int,
) -> list[Set[UUID]]:
    """The users with facts on each day in UTC that a range has a part in; days with the same users are given once.
    A range that has a day in it hides whoever that day alone hides: so what is asked of more days is no way to those
    who are hidden on one. `people` is how many the organisation has. Raises BadInput where that is too much."""
    start, end = _midnight(start), _midnight(end + _DAY - timedelta(microseconds=1))
    most = max(MOST_CELLS // max(people, 1), 1)
    if (end - start) // _DAY > most:
        raise BadInput(
            "Somebody has opted out of being named, and who hides them is looked for on each day: among so many "
            f"people, that is done for at most {most} days. Take a shorter range, or leave `user` out.",
            field="range",
        )
    step = max(CELLS_AT_ONCE // max(people, 1), 1) * _DAY
    found: set[frozenset[UUID]] = set()
    while start < end:
        found |= await _of_piece(scope, metric, start, min(start + step, end), filter)
        start += step
    return list(found)


async def _of_piece(
    scope: MetricScope,
    metric: str,
    start: datetime,
    end: datetime,
    filter: Mapping[str, Sequence[str | None]] | None,
) -> set[frozenset[UUID]]:
    rows = await read(
        scope, metric, start=start, end=end, bucket=BUCKETS[BucketName.DAY], filter=filter, group_by=("user",)
    )
    days: dict[datetime, set[UUID]] = {}
    for row in rows.rows:
        [user] = row.labels
        if row.count and user is not None:
            days.setdefault(row.at, set()).add(UUID(user))
    return {frozenset(users) for users in days.values()}


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
