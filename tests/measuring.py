"""What the tests of metrics share: a web process in this one, people with tokens, facts, and the documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app.web import WebApp
from app.wiring import Program, serving
from core import db
from core.ids import new_id
from core.permissions import Origin, Permission, Role
from models.identity import UserRow
from services.identity.accounts import create_user
from services.identity.actors import actor_of_user
from services.identity.tokens import create_access_token
from services.metrics.store import store
from tests.app.conftest import served
from tests.clients_of_graph import Client, Json
from tests.services.identity_help import House, a_house

SERIES = """
query ($metric: String!, $filter: [MetricConditionInput!], $groupBy: [String!], $bucket: MetricBucket,
    $from: DateTime, $to: DateTime, $range: MetricRange, $timezone: String! = "UTC", $fill: MetricFill, $top: Int,
    $compare: MetricCompare! = NONE) {
  metricSeries(metric: $metric, filter: $filter, groupBy: $groupBy, bucket: $bucket, from: $from, to: $to,
      range: $range, timezone: $timezone, fill: $fill, top: $top, compare: $compare) {
    level bucket timezone from to previousFrom previousTo omittedGroups watermark metric { name unit kind }
    groups {
      labels { dimension value name } total previousTotal
      points { at end value previous rows { fact from to filter { dimension values } } }
    }
    rest { labels { value } total previousTotal points { value previous rows { fact } } }
  }
}
"""
ROWS = """
query ($fact: String!, $from: DateTime!, $to: DateTime!, $filter: [MetricConditionInput!], $first: Int,
    $after: String) {
  metricRows(fact: $fact, from: $from, to: $to, filter: $filter, first: $first, after: $after) {
    totalCount pageInfo { hasNextPage endCursor }
    nodes {
      fact at source recordedAt conventions labels { dimension value } measures { name value }
      session { id } run { id number } toolExecution { id tool }
    }
  }
}
"""
NOW = """
query ($metrics: [String!], $at: DateTime, $window: Int! = 60) {
  metricsNow(metrics: $metrics, at: $at, windowSeconds: $window) { at windowSeconds values { metric unit value } }
}
"""


class Place:
    """A running web process in this one, and the people of its organisation."""

    def __init__(self, url: str, app: WebApp, house: House) -> None:
        self.url, self.app, self.house = url, app, house

    @property
    def base(self) -> str:
        return self.url.removesuffix("/graphql")

    async def client(self, role: Role, *scopes: Permission) -> Client:
        return await self.client_of(self.house.users[role], *scopes)

    async def client_of(self, user: UserRow, *scopes: Permission) -> Client:
        actor = actor_of_user(user, None, Origin())
        made = await create_access_token(actor, name="tests", scopes=[scope.value for scope in scopes] or None)
        return Client(self.url, made.secret)

    async def people(self, count: int, *, team: str | None = None, name: str = "Person") -> list[UserRow]:
        """Further members; together in a team, where one is named."""
        made = [
            await create_user(
                self.house.system, name=f"{name} {number:02}", email=f"{name}{number}@people.example", role=Role.MEMBER
            )
            for number in range(count)
        ]
        if team is not None:
            await self.team(team, [user["id"] for user in made])
        return made

    async def team(self, name: str, members: Iterable[UUID]) -> UUID:
        id_ = new_id()
        await db.execute(
            "INSERT INTO teams (id, organization_id, name, slug, created_at) VALUES ($1, $2, $3, $4, now())",
            id_,
            self.house.organization_id,
            name,
            name.lower(),
        )
        for member in members:
            await db.execute(
                "INSERT INTO team_members (id, team_id, user_id, created_at) VALUES ($1, $2, $3, now())",
                new_id(),
                id_,
                member,
            )
        return id_

    async def put(self, fact: str, *rows: Json, organization: UUID | None = None) -> None:
        """Store facts, with what is usual where they say nothing."""
        usual: Json = {"organization_id": organization or self.house.organization_id, "source": "QUARTERDECK"}
        usual |= _USUAL[fact]
        async with db.transaction() as tx:
            await store(tx, {f"{fact}_facts": [usual | {"id": new_id()} | row for row in rows]})


_USUAL: dict[str, Json] = {
    "tool": {"tool": "read", "outcome": "SUCCEEDED", "duration_ms": 10.0},
    "run": {"outcome": "FINISHED", "duration_ms": 1000.0},
    "usage": {"model": "some:model", "requests": 1},
    "session": {"change": "CREATED"},
    "message": {"role": "USER", "characters": 10},
}


@asynccontextmanager
async def a_place(program: Program) -> AsyncIterator[Place]:
    """This process serves; nothing works in the background."""
    settings = program.parts.settings
    app = WebApp(settings)
    async with serving(program), served(app, settings) as base:
        yield Place(f"{base}/graphql", app, await a_house())


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def series(client: Client, metric: str, **asked: Any) -> Json:
    """The answer to a question; `start` and `end` are `from` and `to`."""
    for name, graph in (("start", "from"), ("end", "to"), ("group_by", "groupBy")):
        if name in asked:
            asked[graph] = asked.pop(name)
    if isinstance(asked.get("filter"), dict):
        asked["filter"] = [{"dimension": name, "values": values} for name, values in asked["filter"].items()]
    return (await client(SERIES, metric=metric, **asked))["metricSeries"]  # type: ignore[no-any-return]


def values(group: Json) -> list[float | None]:
    return [point["value"] for point in group["points"]]


def by_label(answer: Json, key: str = "value") -> dict[Any, Json]:
    """The groups by their one label."""
    return {group["labels"][0][key]: group for group in answer["groups"]}
