"""The groups of a monitor as they are stored: read before an evaluation's steps, and written after them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from uuid import UUID

from core import db
from core.ids import new_id
from models.base import Row
from models.monitors import MonitorGroupRow, MonitorRow, MonitorState
from services.monitors.states import Group
from services.work import Work

# Every open incident is some group's, also where its row is gone: so it ends, and no other opens beside it.
_BEFORE = """
SELECT coalesce(groups.key, open.group_key) AS key, coalesce(groups.label, open.group_label) AS label,
    coalesce(groups.state, 'FIRING') AS state, coalesce(groups.since, open.opened_at) AS since, groups.pending_since,
    coalesce(groups.value, open.value) AS value, groups.measure, groups.explanation, open.id AS incident_id
FROM (SELECT * FROM monitor_groups WHERE monitor_id = $1) AS groups
FULL JOIN (SELECT * FROM monitor_incidents WHERE monitor_id = $1 AND resolved_at IS NULL) AS open
    ON open.group_key = groups.key
"""


async def known_groups(monitor_id: UUID) -> Mapping[str, str | None]:
    """The groups that must be looked at (key: label): with an incident, or pending."""
    rows = await db.fetch(
        "SELECT key, label FROM monitor_groups WHERE monitor_id = $1 AND pending_since IS NOT NULL "
        "UNION SELECT group_key, group_label FROM monitor_incidents WHERE monitor_id = $1 AND resolved_at IS NULL",
        monitor_id,
        row=Row,
    )
    return {row["key"]: row["label"] for row in rows}


async def stored_groups(work: Work, monitor_id: UUID) -> dict[str, Group]:
    """The groups as they stood, by key: among them each that has an open incident."""
    return {row["key"]: _group(row) for row in await work.tx.fetch(_BEFORE, monitor_id, row=MonitorGroupRow)}


async def store_groups(work: Work, monitor_id: UUID, groups: Sequence[Group], *, grouped: bool) -> None:
    """The groups as they stand. Of a monitor that groups, those that are well have no row, nor have those without data
    that have no incident and are not pending: they would crowd out others for ever."""
    kept = [group for group in groups if not grouped or _is_worth_a_row(group)]
    await work.tx.execute(
        "DELETE FROM monitor_groups WHERE monitor_id = $1 AND key <> ALL($2)",
        monitor_id,
        [group.key for group in kept],
    )
    if kept:
        await work.tx.executemany(
            "INSERT INTO monitor_groups (id, monitor_id, key, label, state, since, pending_since, value, measure, "
            "explanation, incident_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) "
            "ON CONFLICT (monitor_id, key) DO UPDATE SET state = $5, since = $6, pending_since = $7, value = $8, "
            "measure = $9, explanation = $10, incident_id = $11",
            [
                (
                    new_id(),
                    monitor_id,
                    group.key,
                    group.label,
                    group.state.value,
                    group.since,
                    group.pending_since,
                    group.value,
                    _finite(group.measure),
                    group.explanation,
                    group.incident_id,
                )
                for group in kept
            ],
        )


async def failed_groups(work: Work, monitor: MonitorRow) -> tuple[int, int]:
    """Nothing could be read: incidents stay as they are, and what is pending stays so. How many groups, and firing."""
    row = await work.tx.fetchrow(
        "WITH failed AS (UPDATE monitor_groups SET state = 'ERROR' WHERE monitor_id = $1 RETURNING incident_id) "
        "SELECT count(*) AS groups, count(incident_id) AS firing FROM failed",
        monitor["id"],
    )
    return row["groups"], row["firing"]


def _is_worth_a_row(group: Group) -> bool:
    if group.incident_id is not None or group.pending_since is not None:
        return True
    return group.state not in (MonitorState.OK, MonitorState.NO_DATA)


def _group(row: MonitorGroupRow) -> Group:
    return Group(
        key=row["key"],
        label=row["label"],
        state=MonitorState(row["state"]),
        since=row["since"],
        pending_since=row["pending_since"],
        value=row["value"],
        measure=row["measure"],
        explanation=row["explanation"],
        incident_id=row["incident_id"],
    )


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
