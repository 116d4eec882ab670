"""How long metrics are kept, in the graph."""

from __future__ import annotations

from datetime import datetime

import strawberry

from core.permissions import Permission
from resolvers import retention as reads
from schema.fields import Info, column, nested, object_type, query
from schema.scalars import BigInt


@object_type
class MetricDrop:
    """What would go of a table."""

    table: str = column("The table.")
    before: datetime = column("Everything from before this.")
    rows: BigInt = column("How many rows: counted.")
    chunks: int | None = column("How many chunks, which go as a whole; null for a plain table.")
    first: datetime | None = column("When the first row is of; null where there is none.")
    last: datetime | None = column("When the last row is of that goes; null where there is none.")


@object_type
class MetricRetention:
    """What is kept of a kind of facts at a level. It is the installation's, and so are the amounts, of all
    organisations together."""

    fact: str = column("The kind of facts, as `metricRows` takes it.")
    level: str = column("`RAW` for facts one by one, or `MINUTE`, `HOUR`, `DAY` for what is counted of them.")
    kept_days: int | None = column("How many days it is kept; null for ever.")
    setting: str = column("The environment variable that says so, on the server.")
    since: datetime | None = column("The time of the first that is there of your organisation; null for none.")
    dropped_before: datetime | None = column("Everything from before this is gone; null where nothing was dropped.")
    rows: BigInt = column("About how many rows there are, by PostgreSQL's statistics.")
    bytes: BigInt = column("Bytes on disk, with indexes.")
    chunks: int | None = column("In how many chunks; null for plain tables, on a server without TimescaleDB.")
    compressed_chunks: int | None = column("How many of the chunks are compressed; null for plain tables.")
    compresses: bool = column("Whether chunks are compressed when they are a week old.")
    uncounted: int = column(
        "Facts of your organisation that are missing in the figures of this level, as they could not be counted: the "
        "server's log says why, and they are kept in its table `metric_set_aside`."
    )

    @nested(reads.drops_of)
    def would_go(self) -> list[MetricDrop]:
        """What would go if that which is too old were dropped now, as workers do every hour; by table. Nothing is
        dropped."""


@strawberry.type
class RetentionQuery:
    @query(Permission.MEMBERS_MANAGE)
    async def metric_retention(info: Info) -> list[MetricRetention]:
        """How long facts and figures are kept, since when they are there, and what they take. For admins."""
        return await reads.metric_retention(info.context.actor)
