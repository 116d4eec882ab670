"""Telemetry of agents that run elsewhere, in the graph: who sends it, and the names it brought."""

from __future__ import annotations

from datetime import datetime

import strawberry

from core.ids import decode
from core.permissions import Permission
from models import telemetry as models
from resolvers import telemetry as reads
from schema.connections import After, Connection, First
from schema.fields import Info, Node, column, entity, enum_type, input_type, mutation, nested, object_type, query
from schema.scalars import BigInt
from services.metrics.otlp import telemetry
from services.metrics.otlp.labels import MOST

UsageSignal = enum_type(
    models.UsageSignal,
    {
        "TRACES": "Spans of requests to models.",
        "METRICS": "Metrics that count tokens.",
    },
)


@object_type
class MergedLabels:
    """Names of one dimension that a service sent, and for which there was no room: they are put together as `(other)`.
    How many different ones there were is not known, as they are not kept."""

    dimension: str = column("The dimension, as `labelDimensions` has it.")
    facts: BigInt = column("Facts with such a name, each as often as it came.")
    example: str = column("One such name.")
    since: datetime | None = column("When the first came; null where it was not noted.", name="first_at")
    last_at: datetime = column("When the last came.")


@entity(models.TelemetryServiceRow)
class TelemetryService(Node):
    """Something that sends telemetry of agents by OTLP to `/v1/traces` and `/v1/metrics`."""

    name: str = column("Its `service.name`.")
    usage_signal: UsageSignal | None = column(
        "Which signal tells what it used: the first that did so, unless somebody has set it. Usage that the other "
        "signal tells is not counted a second time. Null while none has."
    )
    conventions: list[str] = column("The semantic conventions that were seen, with their versions.")
    spans: BigInt = column("Spans that came.")
    points: BigInt = column("Points of metrics that came.")
    rejected: BigInt = column("How many of those were rejected.")
    ignored: BigInt = column("Points of metrics that say nothing of agents.")
    superseded: BigInt = column("Spans and points with usage that the other signal tells.")
    last_rejection: str | None = column("Why something was rejected last.")
    first_seen_at: datetime = column("When it was first heard of.")
    last_seen_at: datetime = column("When it sent something last.")

    @nested(reads.merged_labels_of, common=Permission.METRICS_READ)
    def merged_labels(self) -> list[MergedLabels]:
        """Names that it sent and that are put together as `(other)`, by dimension; none where all had room."""


@object_type
class LabelDimension:
    """How many different names telemetry has brought for one dimension of metrics."""

    dimension: str = column("The dimension: `tool`, `model`, `service`, …")
    names: BigInt = column("Different names that are kept.")
    overflowed: BigInt | None = column(
        "Facts whose name had no room: they are counted under `(other)`. Each as often as it came. Null for none."
    )
    since: datetime | None = column("Since when names have had no room; null where they have, or it was not noted.")
    example: str | None = column("One such name.")

    @strawberry.field(description="The most that are kept.")
    def limit(root) -> int:
        return MOST


@input_type
class SetUsageSignalInput:
    """Which signal to believe."""

    telemetry_service_id: strawberry.ID = strawberry.field(description="The service, `tel_…`.")
    usage_signal: UsageSignal = strawberry.field(description="The signal that tells what it uses, from now on.")


@object_type
class TelemetryServicePayload:
    """The service as it now is."""

    telemetry_service: TelemetryService = strawberry.field(description="The service.")


@strawberry.type
class TelemetryQuery:
    @query(Permission.METRICS_READ)
    async def telemetry_services(info: Info, first: First = None, after: After = None) -> Connection[TelemetryService]:
        """What sends telemetry of agents that run elsewhere to your organisation, the first known first."""
        return await reads.telemetry_services(info.context.actor, first=first, after=after)

    @query(Permission.METRICS_READ)
    async def label_dimensions(info: Info) -> list[LabelDimension]:
        """How many different names telemetry has brought, by dimension."""
        return await reads.label_dimensions(info.context.actor)


@strawberry.type
class TelemetryMutation:
    @mutation(Permission.METRICS_INGEST)
    async def set_usage_signal(info: Info, input: SetUsageSignalInput) -> TelemetryServicePayload:
        """Say which signal tells what a service uses. What is stored stays as it is. For admins."""
        id_ = decode("tel", input.telemetry_service_id, field="telemetryServiceId")
        row = await telemetry.set_usage_signal(info.context.actor, id_, input.usage_signal)
        return TelemetryServicePayload(telemetry_service=row)
