"""What the tests of monitors share: facts, monitors, evaluations at the instants that a test says, and documents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from core import db
from core.ids import new_id
from core.permissions import Actor, Role
from models.base import Row
from models.monitors import MonitorRow
from services.metrics.store import store
from services.monitors.conditions import Condition, MonitorOperator, Threshold
from services.monitors.evaluation import evaluate_due
from services.monitors.incidents import upkeep
from services.monitors.keeping import Definition, create_monitor
from tests.services.identity_help import House

ABOVE_TEN_DOLLARS = Threshold(MonitorOperator.GREATER, 10)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ABOVE_FIVE = Threshold(MonitorOperator.GREATER, 5)
INCIDENTS = """
query ($filter: IncidentFilter) { incidents(filter: $filter) { totalCount nodes {
  id title summary severity state value openingValue silenced toldCount group { dimension value name }
  labels { name value } monitor { id } acknowledgedBy { id }
  timeline { nodes { kind value note actor { id } } } deliveries { nodes { kind status } }
} } }
"""
ACKNOWLEDGE = """
mutation ($input: AcknowledgeIncidentInput!) { acknowledgeIncident(input: $input) {
  incident { id acknowledgedAt acknowledgedBy { id } }
} }
"""
CHANGES = """
subscription ($after: Cursor) { incidentChanges(after: $after) { cursor incident { id state value silenced } } }
"""


def fact(house: House, at: datetime, *, user: UUID | None = None, **columns: Any) -> dict[str, Any]:
    """A fact of the house's member, unless another user is named."""
    return {
        "at": at,
        "organization_id": house.organization_id,
        "id": new_id(),
        "source": "QUARTERDECK",
        "runtime": "script",
        "user_id": user or house.users[Role.MEMBER]["id"],
        **columns,
    }


async def put(**tables: Sequence[dict[str, Any]]) -> None:
    """Store facts: `put(tool_facts=[…])`."""
    async with db.transaction() as tx:
        await store(tx, tables)


async def calls(house: House, count: int, at: datetime, *, tool: str = "time.now", **columns: Any) -> None:
    """So many tool calls, a second before `at`."""
    given = {"tool": tool, "outcome": "SUCCEEDED", "duration_ms": 5.0, **columns}
    await put(tool_facts=[fact(house, at - timedelta(seconds=1), **given) for _ in range(count)])


async def spend(house: House, usd: float | None, at: datetime, *, user: UUID | None = None) -> None:
    """A request to a model that cost so much."""
    await put(usage_facts=[fact(house, at, user=user, model="some:model", requests=1, input_tokens=10, cost_usd=usd)])


async def watch(
    actor: Actor, condition: Condition = ABOVE_FIVE, *, begins: datetime | None = NOON, **given: Any
) -> MonitorRow:
    """A monitor of tool calls, unless the test says otherwise, that is due at `begins`."""
    definition = Definition(**{"name": "Calls", "metric": "tools.calls", "condition": condition} | given)
    row = await create_monitor(actor, definition, None)
    if begins is not None:
        await db.execute("UPDATE monitors SET next_evaluation_at = $2 WHERE id = $1", row["id"], begins)
    return row


async def at(moment: datetime, *, ready: datetime | None = None) -> int:
    """Everything that workers do about monitors at a moment, with metrics complete up to it."""
    evaluated = await evaluate_due(moment, ready or moment)
    await upkeep(moment)
    return evaluated


async def monitor(id_: UUID) -> Row:
    row = await db.fetchrow("SELECT * FROM monitors WHERE id = $1", id_, row=Row)
    assert row is not None
    return row


async def incidents(monitor_id: UUID) -> list[Row]:
    return await db.fetch("SELECT * FROM monitor_incidents WHERE monitor_id = $1 ORDER BY id", monitor_id, row=Row)


async def timeline(incident_id: UUID) -> list[str]:
    return [
        row["kind"]
        for row in await db.fetch(
            "SELECT kind FROM monitor_incident_events WHERE incident_id = $1 ORDER BY id", incident_id
        )
    ]


async def history(monitor_id: UUID) -> list[Row]:
    return await db.fetch("SELECT * FROM monitor_evaluations WHERE monitor_id = $1 ORDER BY at", monitor_id, row=Row)


async def told(user_id: UUID | None = None) -> list[str]:
    """Titles of what people were told of monitors, in order."""
    rows = await db.fetch(
        "SELECT title FROM notifications WHERE kind = 'MONITOR' AND ($1::uuid IS NULL OR user_id = $1) ORDER BY id",
        user_id,
    )
    return [row["title"] for row in rows]
