"""What somebody may be shown of people's use of the product: the one place that decides it.

- Who may be named: everybody sees their own figures. Admins see those of others where the policy says so, except of
  those who opted out, who are counted among others. Service accounts are nobody's figures: admins see them.
- Teams are shown where no combination of what is shown, the organisation's total among it, gives a figure of fewer
  than `floor` people: neither by who is in the teams, nor by who contributed to any one figure of the answer. Whoever
  asks, and those whom they are shown by name, are not among these people: they are known.
- Those who are hidden among others are at least `floor` people, or others are added to them in an order that never
  changes. So what was added for one question is not named by the next. While somebody is hidden, nobody else is shown
  by name with another dimension: what such answers leave of each other would be one person's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from uuid import UUID

from core import db
from core.errors import BadInput, Forbidden
from core.permissions import Actor
from models.analytics import Individuals
from models.identity import UserKind
from models.sharing import Allowance
from services.metrics.policy import AnalyticsPolicy, policies

PEOPLE_DIMENSIONS = frozenset({"user", "team"})
MOST_SMALL_GROUPS = 16
"""Above this it is not worked out whether groups that overlap give each other away: they are taken to."""
_PRIME = 2**61 - 1


@dataclass(frozen=True, slots=True)
class Team:
    """A team, by who is in it now."""

    name: str
    members: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class People:
    """An organisation's people, and whom of them an actor may be shown."""

    actor: Actor
    policy: AnalyticsPolicy
    names: Mapping[UUID, str]
    persons: frozenset[UUID]
    opted_out: frozenset[UUID]
    teams: Mapping[UUID, Team]

    @property
    def own(self) -> frozenset[UUID]:
        """Whose figures are always theirs to see."""
        return frozenset() if self.actor.user_id is None else frozenset({self.actor.user_id})

    @property
    def depends_on_cells(self) -> bool:
        """Whether who contributed has a say in who is named."""
        return self._names_others and bool(self.opted_out)

    def named(self, cells: Collection[Set[UUID]] = ()) -> frozenset[UUID]:
        """The users whose figures may be shown by name. `cells` are the users who contributed to each figure of the
        answer: to each bucket of each combination of other labels, and on each day (services.metrics.contributors)."""
        if not self.actor.is_admin:
            return self.own
        services = self.names.keys() - self.persons
        if self.policy.individuals is Individuals.SELF_ONLY:
            return self.own | services
        return frozenset(self.names) - self._hidden(cells) | self.own

    def shown_teams(self, cells: Collection[Set[UUID]] = ()) -> frozenset[UUID]:
        """The teams whose figures may be shown, with `cells` as for `named`."""
        # Who is named by any question is known.
        counted = self.persons - self.named()
        asked = {frozenset(cell & counted) for cell in cells} | {frozenset(counted)}
        shown: list[UUID] = []
        in_order = sorted(self.teams, key=lambda id_: (-len(self.teams[id_].members & counted), self._place(id_)))
        for id_ in in_order:
            wanted = [self.teams[other].members for other in (*shown, id_)]
            if all(keeps_floor(people, wanted, self.policy.floor) for people in asked):
                shown.append(id_)
        return frozenset(shown)

    def require(
        self, *, filter: Mapping[str, Sequence[str | None]], group_by: Collection[str], ranked: bool, of_rows: bool
    ) -> None:
        """Raises Forbidden, BadInput where a question may not be asked at all."""
        asked = PEOPLE_DIMENSIONS & {*filter, *group_by}
        if not asked:
            return
        if asked == PEOPLE_DIMENSIONS:
            raise BadInput("`user` and `team` cannot be asked for together.", field="groupBy")
        if ranked and PEOPLE_DIMENSIONS & {*group_by} and self.policy.ranking is Allowance.FORBIDDEN:
            raise Forbidden(
                "Your organisation does not let people and teams be ordered by their figures. Leave `top` out.",
                field="top",
            )
        users = {UUID(value) for value in filter.get("user", ()) if value is not None}
        if not users <= self.named():
            raise Forbidden("You may not see the figures of somebody in this filter.", field="filter")
        if not of_rows and "user" in asked and self.depends_on_cells and {*filter, *group_by} - {"user"}:
            known = self.own | self.names.keys() - self.persons
            if None in filter.get("user", (None,)) or not users <= known:
                raise Forbidden(
                    "Somebody in your organisation has opted out of being named. While that is so, `user` is asked for "
                    "alone, without any other dimension: their figures would be what is left.",
                    field="groupBy",
                )
        if self.actor.is_admin and None in filter.get("team", ()):
            raise BadInput("Those who are in no team are not told apart: `team` takes ids of teams.", field="filter")
        if unknown := {UUID(value) for value in filter.get("team", ()) if value is not None} - self.teams.keys():
            raise BadInput(f"There are {len(unknown)} teams in this filter that do not exist.", field="filter")
        if len(filter.get("team", ())) > 1 and "team" not in group_by:
            raise BadInput("Filter by one team, or group by `team` as well.", field="filter")

    @property
    def _names_others(self) -> bool:
        return self.actor.is_admin and self.policy.individuals is Individuals.ADMINS

    def _hidden(self, cells: Collection[Set[UUID]]) -> Set[UUID]:
        """Those who opted out, and as many more as it takes to hide them."""
        hidden = set(self.opted_out & self.persons - self.own)
        if not hidden:
            return hidden
        for id_ in sorted(self.persons - self.own - hidden, key=self._place):
            if self._is_crowd(hidden) and all(self._is_crowd(cell & hidden) for cell in cells):
                break
            hidden.add(id_)
        return hidden

    def _is_crowd(self, people: Set[UUID]) -> bool:
        return not people or len(people) >= self.policy.floor

    def _place(self, id_: UUID) -> bytes:
        return sha256(self.actor.organization_id.bytes + id_.bytes).digest()


async def people_of(actor: Actor) -> People:
    """The people of the actor's organisation, as the actor may be shown them."""
    organization_id = actor.organization_id
    users = await db.fetch(
        "SELECT users.id, users.name, users.kind, analytics_opt_outs.user_id IS NOT NULL AS opted_out FROM users "
        "LEFT JOIN analytics_opt_outs ON analytics_opt_outs.user_id = users.id WHERE users.organization_id = $1",
        organization_id,
    )
    teams = await db.fetch(
        "SELECT teams.id, teams.name, array_remove(array_agg(team_members.user_id), NULL) AS members FROM teams "
        "LEFT JOIN team_members ON team_members.team_id = teams.id WHERE teams.organization_id = $1 "
        "GROUP BY teams.id",
        organization_id,
    )
    return People(
        actor,
        (await policies(db.fetch, [organization_id]))[organization_id],
        {user["id"]: user["name"] for user in users},
        frozenset(user["id"] for user in users if user["kind"] == UserKind.HUMAN),
        frozenset(user["id"] for user in users if user["opted_out"]),
        {team["id"]: Team(team["name"], frozenset(team["members"])) for team in teams},
    )


async def permitted(
    actor: Actor,
    *,
    filter: Mapping[str, Sequence[str | None]],
    group_by: Collection[str],
    ranked: bool = False,
    of_rows: bool = False,
) -> People:
    """What the actor may be shown, for a question with `user` or `team` in it (as uuids in text). Raises Forbidden,
    BadInput where it may not be asked; `ranked` where its answer is ordered by value, or cut by it, and `of_rows` where
    it is single facts."""
    people = await people_of(actor)
    people.require(filter=filter, group_by=group_by, ranked=ranked, of_rows=of_rows)
    return people


def keeps_floor(people: Set[UUID], groups: Sequence[Set[UUID]], floor: int) -> bool:
    """Whether the sums of these groups, and of all the people, taken together in any way give no sum of some people
    that are fewer than `floor`.

    People who are in the same groups are one part. A sum over few people is a combination of the groups' rows, over the
    parts, that is zero but for a few small parts.
    """
    parts = Counter(sum(1 << number for number, group in enumerate(groups) if one in group) for one in people)
    small = [part for part, size in parts.items() if size < floor]
    if not small:
        return True
    large = [part for part, size in parts.items() if size >= floor]
    rows = [[1] * len(parts)] + [[part >> number & 1 for part in (*large, *small)] for number in range(len(groups))]
    beyond = [row[len(large) :] for row in _eliminated(rows, len(large))]
    rank = _rank(beyond)
    if rank == 0:
        return True
    if len(small) > MOST_SMALL_GROUPS:
        return False
    for count in range(1, min(floor - 1, len(small)) + 1):
        for chosen in combinations(range(len(small)), count):
            if sum(parts[small[number]] for number in chosen) >= floor:
                continue
            without = [[value for number, value in enumerate(row) if number not in chosen] for row in beyond]
            if _rank(without) < rank:
                return False
    return True


def _eliminated(rows: list[list[int]], columns: int) -> list[list[int]]:
    """What is left of the rows once their first columns are made zero: a basis of the combinations that have none."""
    rows = [list(row) for row in rows]
    for column in range(columns):
        pivot = next((row for row in rows if row[column]), None)
        if pivot is None:
            continue
        rows = [_minus(row, pivot, column) for row in rows if row is not pivot]
    return rows


def _minus(row: list[int], pivot: list[int], column: int) -> list[int]:
    if not row[column]:
        return row
    times = row[column] * pow(pivot[column], -1, _PRIME)
    return [(value - times * other) % _PRIME for value, other in zip(row, pivot, strict=True)]


def _rank(rows: list[list[int]]) -> int:
    width = len(rows[0]) if rows else 0
    found = 0
    for column in range(width):
        pivot = next((row for row in rows if row[column]), None)
        if pivot is not None:
            found += 1
            rows = [_minus(row, pivot, column) for row in rows if row is not pivot]
    return found
