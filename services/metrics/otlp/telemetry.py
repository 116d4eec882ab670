"""What admins say of the services that send telemetry."""

from __future__ import annotations

from uuid import UUID

from core.errors import Forbidden, NotFound
from core.permissions import Actor
from models.base import Query
from models.telemetry import TelemetryServiceRow, UsageSignal, visible_to
from services.work import write


async def set_usage_signal(actor: Actor, service_id: UUID, signal: UsageSignal) -> TelemetryServiceRow:
    """From now on, take what a service used from this signal, and not from the other. What is stored stays.

    Raises Forbidden, NotFound.
    """
    async with write(actor, "telemetry_service.update") as work:
        if not actor.is_admin:
            raise Forbidden("Only admins of the organisation say which signal tells a service's usage.")
        query = Query()
        row = await work.tx.fetchrow(
            f"SELECT * FROM telemetry_services WHERE id = {query.arg(service_id)} "
            f"AND {query.scope(visible_to(actor))} FOR UPDATE",
            *query.args,
        )
        if row is None:
            raise NotFound("There is no such service.", field="telemetryServiceId")
        work.target("TelemetryService", row["id"], row["name"])
        work.changed(before={"usageSignal": row["usage_signal"]}, after={"usageSignal": signal.value})
        changed = await work.tx.fetchrow(
            "UPDATE telemetry_services SET usage_signal = $2 WHERE id = $1 RETURNING *",
            service_id,
            signal.value,
            row=TelemetryServiceRow,
        )
        assert changed is not None
    return changed
