"""The feed of changed sessions is kept for a week; who comes back later reads the list anew."""

from __future__ import annotations

from core import db

KEPT_DAYS = 7

# In one statement, so that nobody can find the rows gone and their place not yet noted.
_PRUNE = f"""
WITH gone AS (
    DELETE FROM session_changes WHERE at < now() - interval '{KEPT_DAYS} days' RETURNING xid, id
), last AS (
    SELECT xid, id FROM gone ORDER BY xid DESC, id DESC LIMIT 1
), noted AS (
    UPDATE session_changes_pruned SET xid = last.xid, id = last.id FROM last
    WHERE (last.xid, last.id) > (session_changes_pruned.xid, session_changes_pruned.id)
)
SELECT count(*) FROM gone
"""


async def prune_session_changes() -> int:
    """Remove changes older than KEPT_DAYS, and note up to where; returns how many. Called by workers now and then."""
    return await db.fetchval(_PRUNE)  # type: ignore[no-any-return]


async def has_pruned_after(xid: int, id_: int) -> bool:
    """Whether changes behind this place of the feed have been removed."""
    return await db.fetchval(  # type: ignore[no-any-return]
        "SELECT (xid, id) > ($1::text::xid8, $2::bigint) FROM session_changes_pruned", str(xid), id_
    )
