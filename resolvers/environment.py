"""Reads of environment variables: their names, never their values."""

from __future__ import annotations

from uuid import UUID

from core.paging import Page
from core.permissions import Actor
from models.mcp_servers import EnvironmentVariable, EnvironmentVariableRow
from resolvers import reading


async def environment_variable(actor: Actor, id_: UUID) -> EnvironmentVariableRow | None:
    """A variable, or None where it is not the actor's organisation's."""
    scope = EnvironmentVariable.visible_to(actor)
    return await reading.find("environment_variables", EnvironmentVariableRow, scope, id_)  # type: ignore[no-any-return]


async def environment_variables(actor: Actor, *, first: int | None, after: str | None) -> Page[EnvironmentVariableRow]:
    """The organisation's variables, the oldest first."""
    return await reading.page(
        "environment_variables",
        EnvironmentVariableRow,
        lambda query: [query.scope(EnvironmentVariable.visible_to(actor))],
        first=first,
        after=after,
        descending=False,
        columns="id, organization_id, name, created_at, updated_at",
    )
