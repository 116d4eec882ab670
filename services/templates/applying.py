"""Applying a file of templates: makes and changes drafts by their names, all of them or none, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from uuid import UUID

from core.errors import BadInput, QuarterdeckError
from core.ids import new_id
from core.permissions import Actor
from models.base import Query
from models.templates import SessionTemplate, TemplateLevel, TemplateRow
from services.templates.access import find_template, lock_template
from services.templates.drafts import PUBLIC, NewTemplate, TemplateChanges, create_in, update_in
from services.templates.files import TemplateMetadata, read_file
from services.templates.spec import TemplateSpec
from services.work import Work, write


class ApplyAction(StrEnum):
    """What became of a template."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one document."""

    name: str
    action: ApplyAction
    digest: str
    """Of the draft, as the file has it."""
    changed: Sequence[str]
    """The parts that are different: `metadata.title`, `spec.systemPrompt`; in their order."""
    template: TemplateRow | None
    """As it is now; None where it would have been created."""
    before: TemplateRow | None = None
    """As it was; None where it was created."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The configuration of the file, as it is stored."""


class _DryRun(Exception):
    """Ends a write of which nothing is to stay."""


async def apply(
    actor: Actor, content: str, *, dry_run: bool = False, expected_revision: int | None = None
) -> list[Applied]:
    """Make the templates of a file so, in one transaction. With `dry_run` everything is done and nothing is kept.

    Raises BadInput, TooLarge for the file; NotFound, Forbidden, Conflict and BadInput for its templates, with line and
    column of what is at fault.
    """
    templates = await asyncio.to_thread(read_file, content)
    if expected_revision is not None and len(templates) != 1:
        raise BadInput("A revision is that of one template; the file has several.", field="expectedRevision")
    found: list[Applied] = []
    try:
        async with write(actor, None if dry_run else "template.apply") as work:
            await hold_names(work, [template.metadata.name for template in templates])
            for template in templates:
                try:
                    found.append(
                        await apply_in(work, template.metadata, template.spec, expected_revision=expected_revision)
                    )
                except QuarterdeckError as error:
                    if error.field == "expectedRevision":
                        raise
                    raise template.located(error) from None
            if dry_run:
                raise _DryRun
            work.entry.action = ""  # each template has a record of its own, where something is different
    except _DryRun:
        return [await _undone(actor, applied) for applied in found]
    return found


async def hold_names(work: Work, names: Sequence[str]) -> None:
    """Whoever applies templates of these names goes one after the other, so that nobody fails for another who makes
    the same one at the same time. In one order, so that two never wait for each other."""
    for name in sorted(set(names)):
        await work.tx.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"template:{work.actor.organization_id}:{name}"
        )


async def apply_in(
    work: Work,
    metadata: TemplateMetadata,
    spec: TemplateSpec,
    *,
    expected_revision: int | None = None,
    by: str = "file",
) -> Applied:
    """Make one template so, with an audit record of its own that says by what, within a write that holds its name."""
    before = await named(work, metadata.name)
    digest = spec.digest()
    if before is None:
        _check_expected(expected_revision, metadata)
        new = NewTemplate(
            name=metadata.name,
            title=metadata.title,
            category=metadata.category,
            spec=spec,
            summary=metadata.summary,
            icon=metadata.icon,
            labels=metadata.labels,
        )
        row = await create_in(work, new, new_id())
        changed = changed_parts(None, row)
        _record(work, "template.create", by)
        return Applied(metadata.name, ApplyAction.CREATED, digest, changed, row, None, spec.stored())
    changes = TemplateChanges(
        title=metadata.title,
        summary=metadata.summary,
        icon=metadata.icon or "",
        category=metadata.category,
        labels=metadata.labels,
        spec=spec,
    )
    row = await update_in(work, before, changes, expected_revision=expected_revision)
    if row is before:
        return Applied(metadata.name, ApplyAction.UNCHANGED, digest, [], row, before, spec.stored())
    _record(work, "template.update", by)
    changed = changed_parts(before, row)
    return Applied(metadata.name, ApplyAction.UPDATED, digest, changed, row, before, spec.stored())


async def named(work: Work, name: str) -> TemplateRow | None:
    """The template of this name that the actor sees, held for editing. Raises Forbidden."""
    query = Query()
    id_: UUID | None = await work.tx.fetchval(
        f"SELECT id FROM session_templates WHERE session_templates.name = {query.arg(name)} AND removed_at IS NULL "
        f"AND {query.scope(SessionTemplate.visible_to(work.actor), by_row=True)}",
        *query.args,
    )
    return None if id_ is None else await lock_template(work, id_, needs=TemplateLevel.EDIT, field="name")


def changed_parts(before: TemplateRow | None, after: TemplateRow) -> list[str]:
    """The parts of a document that are different, in their order."""
    names = [name for name in PUBLIC if name not in ("name", "organization_level")]
    found = [f"metadata.{name}" for name in names if not (before[name] == after[name] if before else not after[name])]
    old: dict[str, Any] = before["draft"] if before is not None else {}
    parts = [field.alias or name for name, field in TemplateSpec.model_fields.items()]
    return found + [f"spec.{part}" for part in parts if old.get(part) != after["draft"].get(part)]


def _record(work: Work, action: str, by: str) -> None:
    """An audit record of its own for what was done last."""
    entry = work.entry
    work.also(replace(entry, action=action, details={"by": by}))
    entry.target_kind = entry.target_id = entry.target_name = entry.before = entry.after = None


def _check_expected(expected_revision: int | None, metadata: TemplateMetadata) -> None:
    if expected_revision:
        raise BadInput(
            f"There is no template {metadata.name!r} that you may see; a new one has no revision to expect.",
            field="expectedRevision",
        )


async def _undone(actor: Actor, applied: Applied) -> Applied:
    """What a dry run tells: the template as it is, for nothing was done to it."""
    if applied.action is ApplyAction.CREATED or applied.template is None:
        return replace(applied, template=None)
    return replace(applied, template=await find_template(actor, applied.template["id"]))
