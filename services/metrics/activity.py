"""What people and teams did in a range, as far as services.metrics.people lets it be shown.

Every figure of a group is given where enough people are behind that kind of figure. A group's outcomes (runs that
failed, calls that were denied) are figures of those who had runs or calls at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from core import clock, db
from core.errors import BadInput, Forbidden
from core.permissions import Actor
from models.sharing import Allowance
from services.metrics import calendar, engine
from services.metrics.calendar import BUCKETS, BucketName, RangeName
from services.metrics.contributors import of_days
from services.metrics.engine import MetricScope
from services.metrics.people import People, people_of
from services.metrics.questions import check_range

LONGEST = timedelta(days=400)
"""Days are counted one by one."""


class ActivityOrder(StrEnum):
    """How people and teams are ordered; all but NAME rank them."""

    NAME = "NAME"
    RUNS = "RUNS"
    TOOL_CALLS = "TOOL_CALLS"
    TOKENS = "TOKENS"
    COST = "COST"


@dataclass(frozen=True, slots=True)
class ActivityQuestion:
    """A range, by its ends or its name, and the zone whose days count."""

    start: datetime | None = None
    end: datetime | None = None
    range: RangeName | None = None
    timezone: str = "UTC"
    order: ActivityOrder = ActivityOrder.NAME


@dataclass(slots=True)
class Figures:
    """What somebody, or a group, did. None where it may not be shown, and cost also where it is not known."""

    sessions: float | None = None
    runs: float | None = None
    finished_runs: float | None = None
    failed_runs: float | None = None
    active_days: int | None = None
    tool_calls: float | None = None
    failed_tool_calls: float | None = None
    tokens: float | None = None
    cost_usd: float | None = None
    approvals_decided: int | None = None
    approvals_granted: int | None = None

    @property
    def success_rate(self) -> float | None:
        """Finished runs among those that ended; None where there were none."""
        return self.finished_runs / self.runs if self.runs and self.finished_runs is not None else None


@dataclass(frozen=True, slots=True)
class Of:
    """Somebody's figures, or a team's."""

    id: UUID
    name: str
    people: int | None
    """How many are in the team."""
    figures: Figures


@dataclass(frozen=True, slots=True)
class Activity:
    """The answer: those who may be shown, in order, and what there is of the others."""

    start: datetime
    end: datetime
    timezone: str
    floor: int
    shown: Sequence[Of]
    others: Figures | None
    """Of users: all who are not shown, taken together; None where they are too few."""
    omitted: int
    """Teams that are not shown."""


@dataclass(slots=True)
class _Found:
    """Each kind of figure by user, and on which days they were active."""

    by_user: dict[str, dict[UUID | None, float]] = field(default_factory=dict)
    days: dict[UUID, set[datetime]] = field(default_factory=dict)

    def contributors(self, kind: str) -> set[UUID]:
        return {user for user in self.by_user[kind] if user is not None}


_READ: Mapping[str, tuple[str, Mapping[str, Sequence[str]]]] = {
    "sessions": ("sessions.created", {}),
    "runs": ("runs.count", {}),
    "finished_runs": ("runs.count", {"outcome": ["FINISHED"]}),
    "failed_runs": ("runs.failed", {}),
    "tool_calls": ("tools.calls", {}),
    "failed_tool_calls": ("tools.failed", {}),
    "tokens": ("tokens.total", {}),
    "cost_usd": ("cost.usd", {}),
}
_KIND = {
    "finished_runs": "runs",
    "failed_runs": "runs",
    "failed_tool_calls": "tool_calls",
    "cost_usd": "tokens",
    "approvals_granted": "approvals_decided",
}
"""Figures that are parts of others: who is behind those is behind these."""
_RANKED = {
    ActivityOrder.RUNS: "runs",
    ActivityOrder.TOOL_CALLS: "tool_calls",
    ActivityOrder.TOKENS: "tokens",
    ActivityOrder.COST: "cost_usd",
}


async def user_activity(actor: Actor, question: ActivityQuestion) -> Activity:
    """What users did: oneself; for admins also the others, where the policy names them. Raises BadInput, Forbidden."""
    people = await people_of(actor)
    start, end, zone = _checked(question, people)
    own = None if actor.is_admin else list(people.own)
    found = await _read(MetricScope(actor.organization_id, own), start, end, zone)
    cells: list[Set[UUID]] = [found.contributors(kind) for kind in _kinds(found)]
    if people.depends_on_cells:
        for metric, filter_ in _READ.values():
            scope = MetricScope(actor.organization_id)
            cells += await of_days(scope, metric, start, end, filter_, people=len(people.names))
    named = people.named(cells)
    shown = [Of(id_, people.names[id_], None, _figures(found, {id_})) for id_ in named if id_ in people.names]
    others = None
    if actor.is_admin:
        rest = {user for kind in _kinds(found) for user in found.contributors(kind)} - named
        others = _figures(found, rest, people.policy.floor) if len(rest) >= people.policy.floor else None
    return Activity(start, end, zone.key, people.policy.floor, _ordered(shown, question.order), others, 0)


async def team_activity(actor: Actor, question: ActivityQuestion) -> Activity:
    """What the organisation's teams did, by who is in them now: those that may be shown. Raises BadInput, Forbidden."""
    people = await people_of(actor)
    start, end, zone = _checked(question, people)
    found = await _read(MetricScope(actor.organization_id), start, end, zone)
    listed = people.shown_teams()
    may_show = {kind: people.shown_teams([found.contributors(kind)]) for kind in _kinds(found)}
    shown = []
    for id_ in listed:
        team = people.teams[id_]
        allowed = {kind for kind, teams in may_show.items() if id_ in teams}
        shown.append(Of(id_, team.name, len(team.members), _figures(found, team.members, kinds=allowed)))
    omitted = len(people.teams) - len(shown)
    return Activity(start, end, zone.key, people.policy.floor, _ordered(shown, question.order), None, omitted)


def _checked(question: ActivityQuestion, people: People) -> tuple[datetime, datetime, ZoneInfo]:
    zone = calendar.zone_of(question.timezone)
    if question.order is not ActivityOrder.NAME and people.policy.ranking is Allowance.FORBIDDEN:
        raise Forbidden(
            "Your organisation does not let people and teams be ordered by their figures. Order them by NAME.",
            field="orderBy",
        )
    if (question.range is None) == (question.start is None):
        raise BadInput("Give either `range`, or `from` and `to`.", field="range")
    now = clock.now()
    if question.range is not None:
        return *calendar.range_of(question.range, zone, now), zone
    assert question.start is not None
    start, end = question.start, question.end or max(now, question.start)
    if wrong := check_range(start, end):
        raise BadInput(wrong[0][1], field=wrong[0][0])
    if end - start > LONGEST:
        raise BadInput(f"Days are counted for at most {LONGEST.days} of them.", field="from")
    return start, end, zone


async def _read(scope: MetricScope, start: datetime, end: datetime, zone: ZoneInfo) -> _Found:
    found = _Found()
    day = BUCKETS[BucketName.DAY]
    edges = calendar.edges(start, end, day, zone)
    for name, (metric, filter_) in _READ.items():
        daily = name in ("runs", "tool_calls")
        rows = await engine.read(
            scope,
            metric,
            start=start,
            end=end,
            bucket=day if daily else None,
            timezone=zone.key,
            filter=filter_,
            group_by=("user",),
        )
        values = found.by_user.setdefault(name, {})
        for row in rows.rows:
            [text] = row.labels
            user = None if text is None else UUID(text)
            if row.value is not None and row.count:
                values[user] = values.get(user, 0) + row.value
            if daily and user is not None and row.count:
                found.days.setdefault(user, set()).add(max(edge for edge in edges if edge <= row.at))
    users = "" if scope.user_ids is None else "AND decided_by_id = ANY($4)"
    approvals: Sequence[Any] = await db.fetch(
        "SELECT decided_by_id, count(*) AS decided, count(*) FILTER (WHERE status = 'APPROVED') AS granted "
        "FROM approvals WHERE organization_id = $1 AND decided_at >= $2 AND decided_at < $3 "
        f"AND decided_by_id IS NOT NULL {users} GROUP BY 1",
        scope.organization_id,
        start,
        end,
        *([] if scope.user_ids is None else [list(scope.user_ids)]),
    )
    found.by_user["approvals_decided"] = {row["decided_by_id"]: row["decided"] for row in approvals}
    found.by_user["approvals_granted"] = {row["decided_by_id"]: row["granted"] for row in approvals}
    return found


def _kinds(found: _Found) -> list[str]:
    return [name for name in found.by_user if name not in _KIND]


def _figures(found: _Found, users: Set[UUID], floor: int | None = None, *, kinds: Set[str] | None = None) -> Figures:
    """The sums of some users; where there is a floor, or only some kinds may be shown, of those kinds alone."""
    figures = Figures()
    for name, by_user in found.by_user.items():
        kind = _KIND.get(name, name)
        behind = found.contributors(kind) & users
        if (floor is not None and 0 < len(behind) < floor) or (kinds is not None and kind not in kinds):
            continue
        there = [by_user[user] for user in users if user in by_user]
        if there or name != "cost_usd":
            setattr(figures, name, sum(there))
        if name == "runs":
            figures.active_days = len(set().union(*(found.days.get(user, set()) for user in users)))
    return figures


def _ordered(shown: Sequence[Of], order: ActivityOrder) -> list[Of]:
    by_name = sorted(shown, key=lambda of: (of.name.casefold(), of.id))
    if order is ActivityOrder.NAME:
        return by_name
    return sorted(by_name, key=lambda of: -(getattr(of.figures, _RANKED[order]) or 0))
