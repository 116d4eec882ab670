"""Session templates as files, in the graph."""

from __future__ import annotations

from typing import Annotated

import strawberry
from strawberry.scalars import JSON

from core.ids import decode
from core.permissions import Permission
from resolvers import template_files as reads
from schema.fields import Info, column, enum_type, input_type, mutation, nested, object_type, query
from schema.templates import SessionTemplate, SessionTemplateDifference, TemplateId
from services.templates import applying, files

ApplyAction = enum_type(
    applying.ApplyAction,
    {
        "CREATED": "There was none of this name: it was made, with a draft and no version.",
        "UPDATED": "It was different, and is now as the file says.",
        "UNCHANGED": "It was so already.",
    },
)


@object_type
class TemplateCredential:
    """A value of a template that looks like a credential. Templates name environment variables instead."""

    path: str = column("Where it is: `spec.systemPrompt`.")
    message: str = column("What to do.")


@object_type
class SessionTemplateFile:
    """A template as a YAML file: `quarterdeck/v1`, `SessionTemplate`. It has neither ids, owners and sharing, nor
    values of secrets, of which templates have only the names."""

    name: str = column("The template's name.")
    text: str = column(
        "The file. Its keys are in one order, and texts of several lines stand as they are: the same template gives "
        "the same text."
    )
    digest: str = column("SHA-256 of the configuration in canonical JSON, as of drafts and versions.")
    findings: list[TemplateCredential] = column("What in it looks like a credential. Look at it before you pass it on.")


@object_type
class AppliedSessionTemplate:
    """What became of one document of a file."""

    name: str = column("The template's name.")
    action: ApplyAction = column("What became of it; of a dry run, what would.")
    digest: str = column("SHA-256 of the file's configuration in canonical JSON: what is tested and published.")
    changed: list[str] = column("The parts that are different, such as `metadata.title` and `spec.systemPrompt`.")

    @nested(reads.differences_of_applied)
    def difference(self) -> SessionTemplateDifference | None:
        """What is different in the configuration; null where the template is new."""

    template: SessionTemplate | None = column(
        "The template as it is now; after a dry run as it was before, and null where it would be made."
    )


@input_type
class ApplySessionTemplateInput:
    """A file of templates. All of it is done, or nothing."""

    content: str = strawberry.field(
        description="YAML with up to 50 documents, at most 1,500,000 characters. `sessionTemplateJsonSchema` describes "
        "them. No anchors, aliases and tags."
    )
    dry_run: bool = strawberry.field(
        default=False, description="true to change nothing, and be told what would become of it."
    )
    expected_revision: int | None = strawberry.field(
        default=None,
        description="For a file with one template: the `draft.revision` that you saw, 0 for a new one. Where it is "
        "another one by now, this is a CONFLICT.",
    )


@object_type
class ApplySessionTemplatePayload:
    """What became of a file."""

    results: list[AppliedSessionTemplate] = column("One for each document, in their order; at most 50.")
    dry_run: bool = column("Whether nothing was changed.")


@strawberry.type
class TemplateFileQuery:
    @query(Permission.TEMPLATES_READ)
    async def export_session_template(
        info: Info,
        template_id: TemplateId,
        version: Annotated[int | None, strawberry.argument(description="Its number; left out, the draft.")] = None,
    ) -> SessionTemplateFile:
        """A template as a file, to be kept in a repository, changed there, and applied again. NOT_FOUND where there is
        none that you may see."""
        return await reads.export(info.context.actor, decode("tpl", template_id, field="templateId"), version)

    @query(Permission.TEMPLATES_READ)
    async def session_template_json_schema(info: Info) -> JSON:
        """The JSON Schema (2020-12) of templates in files. It is also at `/schemas/session-template.v1.json`, where
        editors read it."""
        return files.json_schema()


@strawberry.type
class TemplateFileMutation:
    @mutation(Permission.TEMPLATES_WRITE)
    async def apply_session_template(info: Info, input: ApplySessionTemplateInput) -> ApplySessionTemplatePayload:
        """Make templates as a file says: by their names they are made, or their drafts changed. The same file again
        changes nothing. Errors of the file have `line` and `column` in their `fields`. What is changed is tested and
        published afterwards, as usual."""
        found = await applying.apply(
            info.context.actor, input.content, dry_run=input.dry_run, expected_revision=input.expected_revision
        )
        return ApplySessionTemplatePayload(results=found, dry_run=input.dry_run)
