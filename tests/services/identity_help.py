"""What the tests of identity share: an organisation with one member of each role."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from core import db
from core.permissions import Actor, Origin, Role
from models.base import Row
from models.identity import UserRow
from services.identity.accounts import create_organization, create_user
from services.identity.actors import actor_of_user, system_actor

PASSWORD = "four unrelated words in a row"
HERE = Origin(ip="192.0.2.10", user_agent="tests", request_id="req-1")
ELSEWHERE = Origin(ip="198.51.100.20", user_agent="tests")


@dataclass(frozen=True)
class House:
    """An organisation. The admin has the password PASSWORD, the others have none."""

    organization_id: UUID
    system: Actor
    users: dict[Role, UserRow]

    def actor(self, role: Role) -> Actor:
        return actor_of_user(self.users[role], None, HERE)


async def a_house(name: str = "Acme") -> House:
    organization = await create_organization(name)
    system = system_actor(organization["id"])
    users = {}
    for role in Role:
        users[role] = await create_user(
            system,
            name=f"Demo {role.value.title()}",
            email=f"{role.value}@{organization['slug']}.example",
            role=role,
            password=PASSWORD if role is Role.ADMIN else None,
        )
    return House(organization["id"], system, users)


async def audited(action: str) -> list[Row]:
    return await db.fetch("SELECT * FROM audit_records WHERE action = $1 ORDER BY at, id", action, row=Row)
