"""What is forgotten of monitors, and when."""

from __future__ import annotations

from core import db

EVALUATIONS_DAYS = 7
CHANGES_DAYS = 180
DELIVERIES_DAYS = 90
INCIDENTS_DAYS = 400


async def prune_monitors() -> None:
    """Remove old evaluations (those that changed something are kept longer), deliveries, incidents, and silences."""
    await db.execute(
        "DELETE FROM monitor_evaluations WHERE at < now() - $1 * interval '1 day' "
        "AND (NOT changed OR at < now() - $2 * interval '1 day')",
        EVALUATIONS_DAYS,
        CHANGES_DAYS,
    )
    await db.execute(
        "DELETE FROM alert_deliveries WHERE status IN ('SENT', 'FAILED', 'SKIPPED') "
        "AND created_at < now() - $1 * interval '1 day'",
        DELIVERIES_DAYS,
    )
    await db.execute("DELETE FROM monitor_incidents WHERE resolved_at < now() - $1 * interval '1 day'", INCIDENTS_DAYS)
    await db.execute("DELETE FROM monitor_silences WHERE ends_at < now() - $1 * interval '1 day'", INCIDENTS_DAYS)
