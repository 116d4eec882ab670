"""Sharing templates in the graph."""

from __future__ import annotations

from datetime import datetime

import strawberry

from core.permissions import Permission
from resolvers import templates as reads
from schema.fields import Info, decode_ids, input_type, mutation, object_type
from schema.sharing import Grant
from schema.template_writes import SessionTemplatePayload, template_id
from schema.templates import SessionTemplate, TemplateLevel
from services.sharing import grants
from services.sharing.giving import Terms
from services.templates import sharing


@input_type
class ShareSessionTemplateInput:
    """With whom to share a template. Who has a grant already gets these terms instead."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    user_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="People and service accounts of the organisation; 500 for a template."
    )
    team_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="Teams: whoever is in them; 50 for a template."
    )
    level: TemplateLevel = strawberry.field(description="What they may do.")
    note: str | None = strawberry.field(default=None, description="Why, up to 500 characters; they can read it.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends by itself; left out for never, or the latest that the policy allows."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Repeat the mutation with the same key, and you get the first result instead of doing it twice.",
    )


@input_type
class SetSessionTemplateVisibilityInput:
    """What everybody in the organisation may do with a template."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    organization_level: TemplateLevel | None = strawberry.field(
        default=None, description="VIEW, USE or EDIT; left out or null for nothing."
    )


@object_type
class ShareSessionTemplatePayload:
    """With whom the template is shared now."""

    template: SessionTemplate = strawberry.field(description="The template.")
    grants: list[Grant] = strawberry.field(description="One for each of whom you named.")


@strawberry.type
class TemplateSharingMutation:
    @mutation(Permission.TEMPLATES_SHARE)
    async def share_session_template(info: Info, input: ShareSessionTemplateInput) -> ShareSessionTemplatePayload:
        """Let people and teams do something with a template that you administer, or change what they may.
        `revokeGrant` takes it away."""
        actor, id_ = info.context.actor, template_id(input)
        given = await grants.share_template(
            actor,
            id_,
            Terms(input.level, input.note, input.expires_at),
            users=decode_ids("User", input.user_ids, "userIds") or (),
            teams=decode_ids("Team", input.team_ids, "teamIds") or (),
            key=input.idempotency_key,
        )
        return ShareSessionTemplatePayload(template=await reads.template(actor, id_), grants=given)

    @mutation(Permission.TEMPLATES_SHARE)
    async def set_session_template_visibility(
        info: Info, input: SetSessionTemplateVisibilityInput
    ) -> SessionTemplatePayload:
        """Say what everybody in the organisation may do with a template that you administer."""
        row = await sharing.set_visibility(info.context.actor, template_id(input), input.organization_level)
        return SessionTemplatePayload(template=row)
