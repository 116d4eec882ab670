"""Facts that metrics are made of. Their tables are made by SQL: hypertables have no primary key."""

from __future__ import annotations

from enum import StrEnum

from models.base import Row


class FactSource(StrEnum):
    """Where a fact comes from: from the log of the sessions, or from outside by OTLP."""

    QUARTERDECK = "QUARTERDECK"
    OTLP = "OTLP"


COMMON_COLUMNS = (
    "at",
    "organization_id",
    "id",
    "source",
    "session_id",
    "run_id",
    "user_id",
    "template_version_id",
    "runtime",
    "service",
    "conventions",
)
"""The columns that every fact has. `recorded_at`, which is not among them, is when it was stored."""

FACTS = {
    "tool": ("tool", "server", "outcome", "duration_ms", "model", "error_kind"),
    "usage": (
        "model",
        "provider",
        "requests",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "duration_ms",
        "cost_usd",
        "cost_source",
    ),
    "run": ("model", "outcome", "error_code", "duration_ms", "queue_ms"),
    "message": ("role", "characters"),
    "session": ("change", "duration_ms"),
    "resource": ("resource", "host", "value"),
}
"""The kinds of facts, and the columns that each has besides: `tool` is the table `tool_facts`."""


class FactRow(Row):
    __slots__ = ()
