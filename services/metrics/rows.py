"""The facts behind figures: which ones an actor may list, and how that is said in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.errors import BadInput, Forbidden
from core.permissions import Actor
from models.base import Query
from models.metrics import FACTS
from models.sessions import in_visible_session
from services.metrics.engine import scope_of
from services.metrics.people import PEOPLE_DIMENSIONS, permitted
from services.metrics.questions import check_range, checked_filter

_COLUMNS = {
    "user": "user_id",
    "template_version": "template_version_id",
    "session": "session_id",
}
ERRORS = {"tool": "error_kind", "run": "error_code"}
_LOOKED_UP = {
    "team": ("user_id", "SELECT user_id FROM team_members WHERE team_id = ANY({})"),
    "template": ("template_version_id", "SELECT id FROM session_template_versions WHERE template_id = ANY({})"),
}


@dataclass(frozen=True, slots=True)
class RowsQuestion:
    """Which facts."""

    fact: str
    start: datetime
    end: datetime
    filter: Mapping[str, Sequence[str | None]]


async def checked(actor: Actor, question: RowsQuestion) -> dict[str, list[str | None]]:
    """The question's filter, as the tables have it. Raises BadInput, and Forbidden where it is about people whom the
    actor may not see."""
    if question.fact not in FACTS:
        raise BadInput(f"`fact` is one of {', '.join(FACTS)}.", field="fact")
    if wrong := check_range(question.start, question.end):
        raise BadInput(wrong[0][1], field=wrong[0][0])
    filter_ = checked_filter(question.fact, question.filter)
    await require_people(actor, filter_)
    return filter_


async def require_people(actor: Actor, filter_: Mapping[str, Sequence[str | None]]) -> None:
    """Raises Forbidden where the rows would be those of people whom the actor may not see."""
    if not actor.is_admin or not PEOPLE_DIMENSIONS & filter_.keys():
        return
    people = await permitted(actor, filter=filter_, group_by=(), of_rows=True)
    asked = {name: [value for value in values if value] for name, values in filter_.items()}
    if "team" in asked:
        # A row is one person's, whoever else is in the team.
        known = people.named()
        if not all(people.teams[UUID(team)].members <= known for team in asked["team"]):
            raise Forbidden("The rows of a team are those of single people, whom you may not see.", field="filter")


def conditions(
    actor: Actor, question: RowsQuestion, filter_: Mapping[str, Sequence[str | None]], query: Query
) -> list[str]:
    """The condition on `FACT_facts`: the actor's scope, sessions that they may see, the range and the filter."""
    table = f"{question.fact}_facts"
    scope = scope_of(actor)
    visible = query.scope(in_visible_session(table, actor), by_row=True)
    found = [
        f"{table}.organization_id = {query.arg(scope.organization_id)}",
        f"{table}.at >= {query.arg(question.start)}",
        f"{table}.at < {query.arg(question.end)}",
        f"({table}.session_id IS NULL OR {visible})",
    ]
    if scope.user_ids is not None:
        found.append(f"{table}.user_id = ANY({query.arg(list(scope.user_ids))})")
    return found + [_among(question.fact, name, values, query) for name, values in filter_.items()]


def _among(fact: str, name: str, values: Sequence[str | None], query: Query) -> str:
    known: list[Any] = [value for value in values if value is not None]
    if name in (*_COLUMNS, *_LOOKED_UP):
        known = [UUID(value) for value in known]
    if name in _LOOKED_UP:
        column, looked_up = _LOOKED_UP[name]
        condition = f"{fact}_facts.{column} IN ({looked_up.format(query.arg(known))})"
    else:
        column = ERRORS.get(fact, name) if name == "error" else _COLUMNS.get(name, name)
        condition = f"{fact}_facts.{column} = ANY({query.arg(known)})"
    return condition if None not in values else f"({condition} OR {fact}_facts.{column} IS NULL)"
