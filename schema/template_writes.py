"""Session templates in the graph: drafts and versions, mutations."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import strawberry

from core.ids import decode
from core.permissions import Permission
from resolvers import templates as reads
from schema.fields import Info, input_type, mutation, nested, object_type
from schema.sessions import LabelInput
from schema.template_specs import SessionTemplateSpecInput
from schema.templates import SessionTemplate, SessionTemplateVersion, TemplateLevel
from services.templates import drafts, versions

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."
_NAME = "How files and commands call it: 1 to 64 lower-case letters, digits and hyphens; unique in the organisation."


@input_type
class CreateSessionTemplateInput:
    """A new template of yours."""

    name: str = strawberry.field(description=_NAME)
    title: str = strawberry.field(description="What people call it, up to 200 characters.")
    summary: str = strawberry.field(default="", description="What it is for, up to 500 characters.")
    icon: str | None = strawberry.field(default=None, description="An emoji, or the name of an icon.")
    category: str = strawberry.field(
        description="`development`, `production-analysis`, `security-audit`, `performance-testing`, or the key of "
        "one of the organisation's own."
    )
    labels: list[LabelInput] = strawberry.field(default_factory=list, description="What it is found by, at most 32.")
    spec: SessionTemplateSpecInput = strawberry.field(description="The configuration that sessions are started with.")
    owner_team_id: strawberry.ID | None = strawberry.field(
        default=None, description="A team that you are in, whose members administer it, too."
    )
    organization_level: TemplateLevel | None = strawberry.field(
        default=None, description="What everybody in the organisation may do with it; left out for nothing."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class UpdateSessionTemplateInput:
    """What to change of a template, which takes EDIT. What is left out stays; versions stay in any case."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    expected_revision: int | None = strawberry.field(
        default=None,
        description="The `draft.revision` that you saw: where somebody has changed the template since, this is a "
        "CONFLICT, and nothing is lost.",
    )
    name: str | None = strawberry.field(default=None, description=_NAME)
    title: str | None = strawberry.field(default=None, description="What people call it.")
    summary: str | None = strawberry.field(default=None, description="What it is for.")
    icon: str | None = strawberry.field(default=None, description="An emoji, or the name of an icon; empty for none.")
    category: str | None = strawberry.field(default=None, description="The key of a category.")
    labels: list[LabelInput] | None = strawberry.field(default=None, description="Replaces all labels.")
    spec: SessionTemplateSpecInput | None = strawberry.field(
        default=None, description="The configuration: replaces all of the draft."
    )


@input_type
class SessionTemplateInput:
    """A template."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")


@input_type
class TransferSessionTemplateInput:
    """Whom a template belongs to from now on."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    owner_id: strawberry.ID | None = strawberry.field(default=None, description="The new owner; left out, as it is.")
    owner_team_id: strawberry.ID | None = strawberry.field(
        default=None, description="The team that administers it, too; left out, as it is."
    )
    without_team: bool = strawberry.field(default=False, description="true to take the team away.")


@input_type
class PublishSessionTemplateInput:
    """The draft to publish as the next version."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    digest: str = strawberry.field(
        description="The `draft.digest` that you saw. Where the draft is another one by now, this is a CONFLICT."
    )
    message: str = strawberry.field(default="", description="What is different, up to 2,000 characters.")
    untested_reason: str | None = strawberry.field(
        default=None,
        description="For admins of the organisation: why it is published although no test of it passed, up to 500 "
        "characters. Goes into the audit log.",
    )


@input_type
class RollbackSessionTemplateInput:
    """The version to publish again."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    to: int = strawberry.field(description="The number of the version.")
    message: str = strawberry.field(default="", description="Why, up to 2,000 characters.")


@input_type
class DeprecateSessionTemplateInput:
    """A template that should not be used any more."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    note: str = strawberry.field(default="", description="Why, and what to do instead; up to 500 characters.")
    replacement_id: strawberry.ID | None = strawberry.field(
        default=None, description="The template to use instead, `tpl_…`; it must not be deprecated itself."
    )


@input_type
class DeprecateSessionTemplateVersionInput:
    """A version that should not be used any more. The newest one cannot be: publish another one, or roll back."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    version: int = strawberry.field(description="The number of the version.")
    note: str = strawberry.field(default="", description="Why, up to 500 characters.")
    replacement: int | None = strawberry.field(
        default=None, description="The number of the version to use instead; it must not be deprecated itself."
    )


@input_type
class ReinstateSessionTemplateInput:
    """A template, or a version of it, that may be used after all."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    version: int | None = strawberry.field(default=None, description="Which version; left out, the template.")


@object_type
class SessionTemplatePayload:
    """The template as it now is."""

    template: SessionTemplate = strawberry.field(description="The template.")


@object_type
class SessionTemplateVersionPayload:
    """The version as it now is."""

    version: SessionTemplateVersion = strawberry.field(description="The version.")

    @nested(lambda actor, parents, args: reads.template_of(actor, [parent.version for parent in parents], args))
    def template(self) -> SessionTemplate:
        """Its template."""


@strawberry.type
class TemplateMutation:
    @mutation(Permission.TEMPLATES_WRITE)
    async def create_session_template(info: Info, input: CreateSessionTemplateInput) -> SessionTemplatePayload:
        """Make a template of your own. It has a draft; test it, and publish it."""
        new = drafts.NewTemplate(
            name=input.name,
            title=input.title,
            category=input.category,
            spec=input.spec.checked(),
            summary=input.summary,
            icon=input.icon,
            labels={label.name: label.value for label in input.labels},
            owner_team_id=None
            if input.owner_team_id is None
            else decode("team", input.owner_team_id, field="ownerTeamId"),
            organization_level=input.organization_level,
        )
        row = await drafts.create_template(info.context.actor, new, key=input.idempotency_key)
        return SessionTemplatePayload(template=row)

    @mutation(Permission.TEMPLATES_WRITE)
    async def update_session_template(info: Info, input: UpdateSessionTemplateInput) -> SessionTemplatePayload:
        """Change what a template is called, and its draft."""
        changes = drafts.TemplateChanges(
            name=input.name,
            title=input.title,
            summary=input.summary,
            icon=input.icon,
            category=input.category,
            labels=None if input.labels is None else {label.name: label.value for label in input.labels},
            spec=input.spec.checked() if input.spec else None,
        )
        row = await drafts.update_template(
            info.context.actor, template_id(input), changes, expected_revision=input.expected_revision
        )
        return SessionTemplatePayload(template=row)

    @mutation(Permission.TEMPLATES_WRITE)
    async def remove_session_template(info: Info, input: SessionTemplateInput) -> SessionTemplatePayload:
        """Remove a template that you administer. Sessions that were started from it go on."""
        return SessionTemplatePayload(template=await drafts.remove_template(info.context.actor, template_id(input)))

    @mutation(Permission.TEMPLATES_WRITE)
    async def transfer_session_template(info: Info, input: TransferSessionTemplateInput) -> SessionTemplatePayload:
        """Give a template to another owner, or to a team. Only for its owner and the organisation's admins."""
        row = await drafts.transfer_template(
            info.context.actor,
            template_id(input),
            owner_id=None if input.owner_id is None else decode("usr", input.owner_id, field="ownerId"),
            owner_team_id=None
            if input.owner_team_id is None
            else decode("team", input.owner_team_id, field="ownerTeamId"),
            without_team=input.without_team,
        )
        return SessionTemplatePayload(template=row)

    @mutation(Permission.TEMPLATES_WRITE)
    async def publish_session_template(info: Info, input: PublishSessionTemplateInput) -> SessionTemplateVersionPayload:
        """Make the draft the next version. It takes a test of exactly this draft that has passed."""
        row = await versions.publish(
            info.context.actor,
            template_id(input),
            digest=input.digest,
            message=input.message,
            untested_reason=input.untested_reason,
        )
        return SessionTemplateVersionPayload(version=row)

    @mutation(Permission.TEMPLATES_WRITE)
    async def rollback_session_template(
        info: Info, input: RollbackSessionTemplateInput
    ) -> SessionTemplateVersionPayload:
        """Publish an earlier version again, as the next version. The draft stays as it is."""
        row = await versions.rollback(info.context.actor, template_id(input), to=input.to, message=input.message)
        return SessionTemplateVersionPayload(version=row)

    @mutation(Permission.TEMPLATES_WRITE)
    async def deprecate_session_template(info: Info, input: DeprecateSessionTemplateInput) -> SessionTemplatePayload:
        """Say that a template should not be used any more, and which one should. Again gives other words."""
        row = await versions.deprecate_template(
            info.context.actor,
            template_id(input),
            note=input.note,
            replacement_id=None
            if input.replacement_id is None
            else decode("tpl", input.replacement_id, field="replacementId"),
        )
        return SessionTemplatePayload(template=row)

    @mutation(Permission.TEMPLATES_WRITE)
    async def deprecate_session_template_version(
        info: Info, input: DeprecateSessionTemplateVersionInput
    ) -> SessionTemplateVersionPayload:
        """Say that an old version should not be used any more, and which one should. Again gives other words."""
        row = await versions.deprecate_version(
            info.context.actor, template_id(input), input.version, note=input.note, replacement=input.replacement
        )
        return SessionTemplateVersionPayload(version=row)

    @mutation(Permission.TEMPLATES_WRITE)
    async def reinstate_session_template(info: Info, input: ReinstateSessionTemplateInput) -> SessionTemplatePayload:
        """Take back that a template, or a version of it, is deprecated; again has no effect."""
        row = await versions.reinstate(info.context.actor, template_id(input), input.version)
        return SessionTemplatePayload(template=row)


def template_id(input: Any) -> UUID:
    """The template that an input names."""
    return decode("tpl", input.template_id, field="templateId")
