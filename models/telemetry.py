"""Who sends telemetry of agents that run elsewhere. The tables are made by SQL."""

from __future__ import annotations

from enum import StrEnum

from core.permissions import Actor
from models.base import Row, Scope


class UsageSignal(StrEnum):
    """Which signal of a service tells what it used, where it sends both."""

    TRACES = "TRACES"
    METRICS = "METRICS"


class TelemetryServiceRow(Row):
    __slots__ = ()


class LabelDimensionRow(Row):
    __slots__ = ()


class MergedLabelsRow(Row):
    __slots__ = ()


def visible_to(actor: Actor) -> Scope:
    """Services that send to the actor's organisation."""
    return Scope("telemetry_services.organization_id = {}", (actor.organization_id,))


def labels_visible_to(actor: Actor) -> Scope:
    """Names that are kept for the actor's organisation."""
    return Scope("metric_labels.organization_id = {}", (actor.organization_id,))
