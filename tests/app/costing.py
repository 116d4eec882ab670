"""What the tests of costs share: a process with real runs on fake model APIs, organisations, and facts in numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from pydantic import SecretStr

from app.web import WebApp
from app.wiring import Program, connected, serving, working
from core import db
from core.ids import encode
from core.permissions import Role
from core.settings import Settings
from services.costs.ledger import Entry, enter
from services.costs.windows import NOBODY
from services.identity.tokens import create_access_token
from tests.app.conftest import served
from tests.clients_of_graph import Client
from tests.fakes.models import FakeModels, fake_models
from tests.services.identity_help import House, a_house

MODEL = "anthropic:claude-sonnet-4-5"
PAST = datetime(2026, 5, 1, tzinfo=UTC)
"""Begin of a range that tests put facts into."""
LATER = PAST + timedelta(days=30)


@dataclass(frozen=True)
class Costing:
    """The process: its address, the model APIs that its runs use."""

    base: str
    models: FakeModels
    program: Program

    async def house(self) -> Household:
        """An organisation of a test's own."""
        house = await a_house(f"House {uuid4().hex[:12]}")
        clients = {}
        for role in Role:
            made = await create_access_token(house.actor(role), name="tests", scopes=None)
            clients[role] = Client(f"{self.base}/graphql", made.secret)
        return Household(house, clients)


@dataclass(frozen=True)
class Household:
    """An organisation, and a client for each of its members."""

    house: House
    clients: dict[Role, Client]

    @property
    def admin(self) -> Client:
        return self.clients[Role.ADMIN]

    @property
    def member(self) -> Client:
        return self.clients[Role.MEMBER]

    @property
    def organization_id(self) -> UUID:
        return self.house.organization_id

    def user_id(self, role: Role) -> UUID:
        return self.house.users[role]["id"]  # type: ignore[no-any-return]

    def user(self, role: Role) -> str:
        """The id in the graph."""
        return encode("usr", self.user_id(role))

    async def facts(self, *rows: dict[str, Any]) -> None:
        """Store usage facts: what is left out has a value that makes sense."""
        for number, row in enumerate(rows):
            given = {
                "at": PAST + timedelta(hours=number),
                "organization_id": self.organization_id,
                "id": uuid4(),
                "source": "QUARTERDECK",
                "user_id": self.user_id(Role.MEMBER),
                "runtime": "pydantic_ai",
                "model": MODEL,
                "requests": 1,
            } | row
            await _insert("usage_facts", given)

    async def calls(self, run_id: UUID, *tools: str, at: datetime = PAST, **more: Any) -> None:
        """Store facts of tool calls of a run."""
        for tool in tools:
            await _insert(
                "tool_facts",
                {
                    "at": at,
                    "organization_id": self.organization_id,
                    "id": uuid4(),
                    "source": "QUARTERDECK",
                    "run_id": run_id,
                    "tool": tool,
                    "outcome": "SUCCEEDED",
                }
                | more,
            )

    async def spent(
        self, usd: str | None, *, at: datetime | None = None, role: Role = Role.MEMBER, tokens: int = 0
    ) -> None:
        """Put spending into the ledger, as if a run had cost it."""
        async with db.transaction() as tx:
            await enter(
                tx,
                [
                    Entry(
                        usage_id=uuid4(),
                        part=1,
                        organization_id=self.organization_id,
                        user_id=self.user_id(role),
                        template_id=NOBODY,
                        at=at or datetime.now(UTC),
                        cost_usd=None if usd is None else Decimal(usd),
                        tokens=tokens,
                    )
                ],
            )


@asynccontextmanager
async def costing(database_url: str, home: Path, **settings: Any) -> AsyncIterator[Costing]:
    """A process that serves and works, with models that answer by script."""
    # What the first run of a model imports takes seconds, which are the tests' and not a run's.
    for provider in ("anthropic", "openai"):
        import_module(f"pydantic_ai.models.{provider}")
    async with fake_models() as models:
        found = Settings(
            home=home,
            database_url=database_url,  # type: ignore[arg-type]
            secret_key="tests-only-" + "k" * 40,  # type: ignore[arg-type]
            database_pool_size=8,
            allow_private_networks=True,
            anthropic_base_url=models.url,
            anthropic_api_key=SecretStr("sk-test-0123456789abcdef"),
            openai_base_url=f"{models.url}/v1",
            **settings,
        )
        async with (
            connected(found, database_url) as program,
            serving(program),
            working(program),
            served(WebApp(found), found) as base,
        ):
            yield Costing(base, models, program)


async def _insert(table: str, row: dict[str, Any]) -> None:
    columns: Sequence[str] = list(row)
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    await db.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", *row.values())
