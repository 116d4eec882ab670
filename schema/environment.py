"""Environment variables in the graph. Values go in and never come out."""

from __future__ import annotations

from datetime import datetime

import strawberry

from core.permissions import Permission
from models.mcp_servers import EnvironmentVariableRow
from resolvers import environment as reads
from schema.connections import After, Connection, First
from schema.fields import Info, Node, column, entity, input_type, mutation, object_type, query
from services import environment


@entity(EnvironmentVariableRow)
class EnvironmentVariable(Node):
    """A named value, sealed. Sessions that name it in `options.environment` give it to their tools."""

    name: str = column("What programs find it by.")
    created_at: datetime = column("When it was first set.")
    updated_at: datetime = column("When it was last set.")


@input_type
class SetEnvironmentVariableInput:
    """A variable and its value."""

    name: str = strawberry.field(
        description="Letters, digits and _; not one that decides how programs run, like PATH or LD_PRELOAD."
    )
    value: str = strawberry.field(description="Up to 32 KiB of text. It is sealed, and nobody can read it back.")


@input_type
class DeleteEnvironmentVariableInput:
    """Which variable to delete."""

    name: str = strawberry.field(description="Its name.")


@object_type
class SetEnvironmentVariablePayload:
    """The variable that was set."""

    environment_variable: EnvironmentVariable = strawberry.field(description="All but its value.")


@object_type
class DeleteEnvironmentVariablePayload:
    """The variable that is no more."""

    environment_variable: EnvironmentVariable = strawberry.field(description="As it was, without its value.")


@strawberry.type
class EnvironmentQuery:
    @query(Permission.TOOLS_READ)
    async def environment_variables(
        info: Info, first: First = None, after: After = None
    ) -> Connection[EnvironmentVariable]:
        """The names of the organisation's environment variables, the oldest first. Values are never shown."""
        return await reads.environment_variables(info.context.actor, first=first, after=after)


@strawberry.type
class EnvironmentMutation:
    @mutation(Permission.TOOLS_MANAGE)
    async def set_environment_variable(info: Info, input: SetEnvironmentVariableInput) -> SetEnvironmentVariablePayload:
        """Make an environment variable, or give it another value. Sessions get it with their next run."""
        row = await environment.set_variable(info.context.actor, input.name, input.value)
        return SetEnvironmentVariablePayload(environment_variable=row)

    @mutation(Permission.TOOLS_MANAGE)
    async def delete_environment_variable(
        info: Info, input: DeleteEnvironmentVariableInput
    ) -> DeleteEnvironmentVariablePayload:
        """Delete an environment variable. Runs of sessions that name it fail from then on, and say so."""
        row = await environment.delete_variable(info.context.actor, input.name)
        return DeleteEnvironmentVariablePayload(environment_variable=row)
