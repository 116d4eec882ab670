"""Reads of the time series of activity."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil
from pathlib import Path

from core import db
from core.errors import BadInput
from core.permissions import Actor
from models.activity import ActivityPointRow, visible_to
from models.base import Query

_STATEMENT = (Path(__file__).parent / "activity.sql").read_text()
MOST_POINTS = 1000


async def activity(actor: Actor, start: datetime, end: datetime, width: timedelta) -> list[ActivityPointRow]:
    """Counts of runs and tool calls from `start` to before `end`, in buckets that begin at `start`.

    Raises BadInput for a range that is empty, or has more than 1,000 buckets.
    """
    if end <= start:
        raise BadInput("`to` must be later than `from`.", field="to")
    if (points := ceil((end - start) / width)) > MOST_POINTS:
        raise BadInput(
            f"That is {points} points; at most {MOST_POINTS} are given. Take a wider bucket.", field="bucket"
        )
    query = Query()
    for value in (start, end, width):
        query.arg(value)
    return await db.fetch(
        _STATEMENT.replace("/* scope */", query.scope(visible_to(actor))), *query.args, row=ActivityPointRow
    )
