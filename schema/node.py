"""`node(id)`: anything by its id, through the same scope as everywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

import strawberry

from core.errors import NotFound
from core.ids import split
from core.permissions import Actor, Permission
from resolvers import annotations as annotation_reads
from resolvers import (
    audit,
    costs,
    environment,
    handoffs,
    identity,
    mcp_servers,
    monitors,
    notifications,
    reports,
    sessions,
    sharing,
    telemetry,
    template_files,
    template_tests,
    templates,
)
from schema.fields import Info, Node, query

Read = Callable[[Actor, UUID], Awaitable[Any]]

# What each prefix is read by, and the permission that reading it takes.
READS: dict[str, tuple[Permission, Read]] = {
    "ses": (Permission.SESSIONS_READ, sessions.session),
    "msg": (Permission.SESSIONS_READ, sessions.message),
    "run": (Permission.SESSIONS_READ, sessions.run),
    "tex": (Permission.SESSIONS_READ, sessions.tool_execution),
    "apr": (Permission.SESSIONS_READ, sessions.approval),
    "ant": (Permission.SESSIONS_READ, annotation_reads.thread),
    "com": (Permission.SESSIONS_READ, annotation_reads.comment),
    "sco": (Permission.SESSIONS_READ, annotation_reads.score),
    "gra": (Permission.SESSIONS_READ, sharing.grant),
    "lnk": (Permission.SESSIONS_READ, sharing.share_link),
    "mcp": (Permission.TOOLS_READ, mcp_servers.mcp_server),
    "env": (Permission.TOOLS_READ, environment.environment_variable),
    "mpt": (Permission.METRICS_READ, costs.price_table_by_id),
    "bud": (Permission.METRICS_READ, costs.budget),
    "aud": (Permission.AUDIT_READ, audit.audit_event),
    "org": (Permission.PROFILE_READ, identity.organization),
    "usr": (Permission.MEMBERS_READ, identity.user),
    "team": (Permission.MEMBERS_READ, identity.team),
    "pat": (Permission.TOKENS_MANAGE, identity.access_token),
    "web": (Permission.TOKENS_MANAGE, identity.web_session),
    "ntf": (Permission.NOTIFICATIONS_MANAGE, notifications.notification),
    "tpl": (Permission.TEMPLATES_READ, templates.template),
    "tpv": (Permission.TEMPLATES_READ, templates.version),
    "pub": (Permission.TEMPLATES_READ, template_files.publisher),
    "tpr": (Permission.TEMPLATES_READ, templates.review),
    "tpt": (Permission.TEMPLATES_READ, template_tests.test),
    "hof": (Permission.SESSIONS_READ, handoffs.handoff),
    "rep": (Permission.METRICS_READ, reports.definition),
    "rpr": (Permission.METRICS_READ, reports.report),
    "tel": (Permission.METRICS_READ, telemetry.telemetry_service),
    "mon": (Permission.METRICS_READ, monitors.monitor),
    "inc": (Permission.METRICS_READ, monitors.incident),
    "sil": (Permission.METRICS_READ, monitors.silence),
    "alc": (Permission.MONITORS_MANAGE, monitors.channel),
    "ald": (Permission.METRICS_READ, monitors.delivery),
}


@strawberry.type
class NodeQuery:
    @query(Permission.PROFILE_READ)
    async def node(
        info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Any id of the graph.")]
    ) -> Node | None:
        """Anything by its id; null where there is nothing that you may see."""
        prefix, value = split(id)
        if prefix not in READS:
            raise NotFound("Things of this kind cannot be read by their id.", field="id")
        permission, read = READS[prefix]
        actor = info.context.actor
        actor.require(permission)
        return await read(actor, value)  # type: ignore[no-any-return]
