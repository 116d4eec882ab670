"""Whose costs may be named: as services/metrics/people.py decides, for the teams that costs count for."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass, replace
from uuid import UUID

from core import db
from core.errors import Forbidden
from core.permissions import Actor
from models.base import Query
from models.sharing import Allowance
from services.costs.questions import CostQuestion, conditions, joins, tools_of_runs
from services.metrics.people import PEOPLE_DIMENSIONS, People, permitted

HIDDEN = ""
"""The label of all people, or teams, together who may not be told apart."""

_FIRST_TEAMS = """
SELECT DISTINCT ON (team_members.user_id) team_members.user_id, team_members.team_id
FROM team_members JOIN teams ON teams.id = team_members.team_id WHERE teams.organization_id = $1
ORDER BY team_members.user_id, team_members.created_at, team_members.team_id
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """Who may be named in the answer to a question, and whether groups may be in the order of their figures."""

    users: frozenset[UUID]
    teams: frozenset[UUID]
    by_amount: bool
    names: dict[str, str]
    """Of users and teams, by id as text."""

    def label(self, query: Query, dimension: str) -> str:
        """SQL of the label of `user` or `team`: null for what nobody did."""
        column = "facts.user_id" if dimension == "user" else "teams.team_id"
        ids = self.users if dimension == "user" else self.teams
        return (
            f"CASE WHEN facts.user_id IS NULL THEN NULL WHEN {column} = ANY({query.arg(list(ids))}::uuid[]) "
            f"THEN {column}::text ELSE '{HIDDEN}' END"
        )


async def who_is_shown(actor: Actor, question: CostQuestion) -> Shown | None:
    """Who may be named; None where the question is not about people, or about the actor alone. Raises Forbidden,
    BadInput where it may not be asked."""
    asked = PEOPLE_DIMENSIONS & {*question.group_by, *question.filter}
    if not asked or not actor.is_admin:
        return None
    texts = {name: [value for value in values if value is not None] for name, values in question.filter.items()}
    people = await permitted(actor, filter=question.filter, group_by=question.group_by)
    people = await _by_first_team(people, actor)
    cells: list[Set[UUID]] = []
    if people.depends_on_cells or "team" in asked:
        cells = await _contributors(actor, question, by_day="user" in asked)
    users, teams = people.named(cells), people.shown_teams(cells) if "team" in asked else frozenset[UUID]()
    for dimension, shown in (("user", users), ("team", teams)):
        if not {UUID(value) for value in texts.get(dimension, ())} <= shown:
            raise Forbidden(
                "What is asked for is of too few people, or of somebody whose figures you may not see.", field="filter"
            )
    names = {str(id_): name for id_, name in people.names.items()} | {
        str(id_): team.name for id_, team in people.teams.items()
    }
    by_amount = people.policy.ranking is Allowance.ALLOWED or not PEOPLE_DIMENSIONS & {*question.group_by}
    return Shown(users, teams, by_amount, names)


async def _by_first_team(people: People, actor: Actor) -> People:
    """With those in each team whose costs count for it: a team may have many members, and the costs of one."""
    members: dict[UUID, set[UUID]] = {}
    for row in await db.fetch(_FIRST_TEAMS, actor.organization_id):
        members.setdefault(row["team_id"], set()).add(row["user_id"])
    teams = {id_: replace(team, members=frozenset(members.get(id_, ()))) for id_, team in people.teams.items()}
    return replace(people, teams=teams)


async def _contributors(actor: Actor, question: CostQuestion, *, by_day: bool) -> list[Set[UUID]]:
    """Who is in each figure of the answer, people left aside; and on each day, as services.metrics.contributors has
    it."""
    query = Query()
    others = [sql for name, sql in question.dimensions.items() if name not in PEOPLE_DIMENSIONS]
    days = ", (date_trunc('day', facts.at, 'UTC'))" if by_day else ""
    calls = ""
    if "tool" in question.group_by or "tool" in question.filter:
        calls = f"LEFT JOIN ({tools_of_runs(query, actor, question)}) AS calls ON calls.run_id = facts.run_id"
    rows: Collection[dict[str, list[UUID]]] = await db.fetch(
        "SELECT array_agg(DISTINCT facts.user_id) AS users FROM usage_facts AS facts "
        f"{joins(query, actor, question)} {calls} WHERE {conditions(query, actor, question)} "
        f"AND facts.user_id IS NOT NULL GROUP BY GROUPING SETS (({', '.join(others)}), (){days})",
        *query.args,
    )
    return [frozenset(row["users"]) for row in rows if row["users"]]
