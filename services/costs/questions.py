"""Questions about costs: what may be asked, and as which conditions on usage facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from core.errors import BadInput
from core.permissions import Actor
from models.base import Query

MOST_DIMENSIONS = 3
MOST_IN_A_FILTER = 1000
LONGEST_RANGE = timedelta(days=3660)
CALLS_WITHIN = timedelta(days=7)
"""Calls this long before and after the range count for the runs in it: a run may have waited for a decision."""

# What a group is told apart by, as SQL.
DIMENSIONS = {
    "model": "facts.model",
    "provider": "facts.provider",
    "runtime": "facts.runtime",
    "service": "facts.service",
    "source": "facts.source",
    "user": "facts.user_id::text",
    "session": "facts.session_id::text",
    "template_version": "facts.template_version_id::text",
    "template": "versions.template_id::text",
    "team": "teams.team_id::text",
    "tool": "calls.tool",
}
IDS = frozenset({"user", "session", "template_version", "template", "team"})
"""Dimensions whose labels are ids."""

_JOINS = {
    "template": "LEFT JOIN session_template_versions AS versions ON versions.id = facts.template_version_id",
    "team": (
        "LEFT JOIN (SELECT DISTINCT ON (team_members.user_id) team_members.user_id, team_members.team_id "
        "FROM team_members JOIN teams ON teams.id = team_members.team_id WHERE teams.organization_id = {} "
        "ORDER BY team_members.user_id, team_members.created_at, team_members.team_id) AS teams "
        "ON teams.user_id = facts.user_id"
    ),
}


@dataclass(frozen=True, slots=True)
class CostQuestion:
    """What is asked. `filter` takes values of dimensions, ids as text; None among them stands for what has none."""

    start: datetime
    end: datetime
    group_by: Sequence[str] = ()
    filter: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    table_id: UUID | None = None
    """The prices; None for the organisation's newest."""
    compare_id: UUID | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.start >= self.end:
            problems.append(("to", "lies after `from`"))
        elif self.end - self.start > LONGEST_RANGE:
            problems.append(("to", f"is at most {LONGEST_RANGE.days} days after `from`"))
        if len(self.group_by) > MOST_DIMENSIONS or len(set(self.group_by)) != len(self.group_by):
            problems.append(("groupBy", f"names at most {MOST_DIMENSIONS} different dimensions"))
        problems += [
            ("groupBy", f"{name[:50]!r} is no dimension of costs: {', '.join(DIMENSIONS)}")
            for name in {*self.group_by, *self.filter} - DIMENSIONS.keys()
        ]
        problems += [
            (f"filter.{name}", f"takes at most {MOST_IN_A_FILTER} values")
            for name, values in self.filter.items()
            if len(values) > MOST_IN_A_FILTER
        ]
        if problems:
            raise BadInput.of_fields(problems)

    @property
    def dimensions(self) -> dict[str, str]:
        """What is told apart, as SQL."""
        return {name: DIMENSIONS[name] for name in self.group_by}


def conditions(query: Query, actor: Actor, question: CostQuestion) -> str:
    """The WHERE over `facts`, tools left aside: whoever is no admin is told of their own usage."""
    found = [
        f"facts.organization_id = {query.arg(actor.organization_id)}",
        f"facts.at >= {query.arg(question.start)}",
        f"facts.at < {query.arg(question.end)}",
    ]
    if not actor.is_admin:
        found.append(f"facts.user_id = {query.arg(actor.user_id)}")
    for name, values in question.filter.items():
        if name != "tool":
            found.append(among(query, DIMENSIONS[name], values))
    return " AND ".join(found)


def joins(query: Query, actor: Actor, question: CostQuestion) -> str:
    """What the dimensions need beside the facts."""
    return " ".join(
        join.format(query.arg(actor.organization_id)) if "{}" in join else join
        for name, join in _JOINS.items()
        if name in question.group_by or name in question.filter
    )


def tools_of_runs(query: Query, actor: Actor, question: CostQuestion) -> str:
    """Which tools runs called, and how often: (run_id, tool, number)."""
    return (
        "SELECT run_id, tool, count(*) AS number FROM tool_facts "
        f"WHERE organization_id = {query.arg(actor.organization_id)} AND run_id IS NOT NULL "
        f"AND at >= {query.arg(question.start - CALLS_WITHIN)} AND at < {query.arg(question.end + CALLS_WITHIN)} "
        "GROUP BY run_id, tool"
    )


def among(query: Query, sql: str, values: Sequence[str | None]) -> str:
    """The condition that a value is one of these; None stands for null."""
    given = f"{sql} = ANY({query.arg([value for value in values if value is not None])}::text[])"
    return f"({given} OR {sql} IS NULL)" if None in values else given
