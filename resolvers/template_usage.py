"""What real sessions say of templates and their versions: how often, by whom, with what success and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from core import db
from core.permissions import Actor
from models.base import Row


@dataclass(frozen=True, slots=True)
class TemplateUsage:
    """Of the sessions started from a template or a version; tests and forks are left out."""

    session_count: int = 0
    user_count: int = 0
    finished_runs: int = 0
    ended_runs: int = 0
    cost_sum: Decimal | None = None
    """US dollars of the sessions whose cost is known; None where none is."""
    cost_average: Decimal | None = None
    last_used_at: Any = None

    @property
    def success_rate(self) -> float | None:
        """Finished runs among those that ended; None before one did."""
        return self.finished_runs / self.ended_runs if self.ended_runs else None


# Counts and costs are of sessions, so that the runs are counted apart from them.
_USAGE = """
SELECT {parent} AS parent, count(*) AS session_count, count(DISTINCT sessions.creator_id) AS user_count,
    sum(sessions.cost_usd) AS cost_sum, avg(sessions.cost_usd) AS cost_average,
    max(sessions.created_at) AS last_used_at, coalesce(sum(ended.finished), 0)::bigint AS finished_runs,
    coalesce(sum(ended.ended), 0)::bigint AS ended_runs
FROM session_template_versions versions
JOIN sessions ON sessions.template_version_id = versions.id AND sessions.purpose = 'WORK'
    AND sessions.forked_from_id IS NULL
CROSS JOIN LATERAL (
    SELECT count(*) AS ended, count(*) FILTER (WHERE runs.status = 'FINISHED') AS finished FROM runs
    WHERE runs.session_id = sessions.id AND runs.status IN ('FINISHED', 'FAILED', 'INTERRUPTED')
) AS ended
WHERE {parent} = ANY($1) GROUP BY 1
"""


async def usage_of_versions(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[TemplateUsage]:
    """How versions were used."""
    return await _usage("versions.id", parents)


async def usage_of_templates(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[TemplateUsage]:
    """How templates were used, in all versions."""
    return await _usage("versions.template_id", parents)


async def _usage(parent: str, parents: Sequence[Any]) -> list[TemplateUsage]:
    rows = await db.fetch(_USAGE.format(parent=parent), list({each["id"] for each in parents}), row=Row)
    found = {
        row["parent"]: TemplateUsage(**{name: value for name, value in row.items() if name != "parent"}) for row in rows
    }
    return [found.get(each["id"], TemplateUsage()) for each in parents]
