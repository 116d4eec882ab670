"""Versions of templates: publishing a draft, going back to an earlier version, and saying that one is out of date."""

from __future__ import annotations

from uuid import UUID

from core.errors import BadInput, Conflict, Forbidden, IllegalTransition, NotFound
from core.ids import encode, new_id
from core.permissions import Actor
from models.base import Query
from models.templates import SessionTemplate, TemplateLevel, TemplateRow, TemplateVersionRow
from services.templates.access import lock_template
from services.templates.catalogue import index
from services.templates.drafts import name_of_editor, read_in
from services.templates.gate import green_test
from services.work import Work, write

LONGEST_MESSAGE = 2000
LONGEST_NOTE = 500


async def publish(
    actor: Actor, template_id: UUID, *, digest: str, message: str, untested_reason: str | None = None
) -> TemplateVersionRow:
    """Make the draft the next version; takes EDIT. `digest` says which draft the actor has seen.

    Raises Conflict where the draft is another one by now or is the newest version already, IllegalTransition where no
    test of it has passed; an admin of the organisation may give a reason instead, which is audited.
    """
    message = _text(message, LONGEST_MESSAGE, "message")
    reason = _text(untested_reason or "", LONGEST_NOTE, "untestedReason") or None
    async with write(actor, "template.publish") as work:
        row = await lock_template(work, template_id, needs=TemplateLevel.EDIT)
        newest = await _newest(work, row)
        if newest is not None and newest["digest"] == digest:
            raise Conflict(
                f"This is published already, as version {newest['number']}.",
                field="digest",
                version=newest["number"],
                versionId=encode("tpv", newest["id"]),
            )
        if row["draft_digest"] != digest:
            raise Conflict(
                f"{await name_of_editor(work, row)} has changed the draft at {row['draft_updated_at']:%Y-%m-%d %H:%M} "
                "UTC: it is not what you saw. Read it again, test it, and publish that.",
                field="digest",
                digest=row["draft_digest"],
                revision=row["draft_revision"],
            )
        test = await green_test(work, row["id"], digest)
        if test is None:
            _check_may_leave_untested(actor, reason)
        version = await _add(
            work, row, row["draft"], digest, message, test_id=test, untested=reason if not test else None
        )
        work.entry.details = {
            "version": version["number"],
            "digest": digest,
            "test": encode("tpt", test) if test else None,
            "untestedReason": version["untested_reason"],
        }
    return version


async def rollback(actor: Actor, template_id: UUID, *, to: int, message: str) -> TemplateVersionRow:
    """Publish an earlier version's configuration again, as the next version; takes EDIT. The draft stays as it is.

    What was tested then counts. Raises NotFound, Conflict for what the newest version is already and for a deprecated
    version.
    """
    message = _text(message, LONGEST_MESSAGE, "message")
    async with write(actor, "template.rollback") as work:
        row = await lock_template(work, template_id, needs=TemplateLevel.EDIT)
        old, newest = await version_in(work, row, to, field="to"), await _newest(work, row)
        if newest is not None and newest["digest"] == old["digest"]:
            raise Conflict(f"Version {newest['number']}, the newest one, is the same already.", field="to")
        if old["deprecated_at"] is not None:
            raise Conflict(f"Version {to} is deprecated. Take that back first (reinstateSessionTemplate).", field="to")
        version = await _add(
            work,
            row,
            old["spec"],
            old["digest"],
            message or f"Back to version {to}",
            test_id=old["test_id"],
            untested=old["untested_reason"],
            rolled_back_to=to,
        )
        work.entry.details = {"version": version["number"], "rolledBackTo": to, "digest": old["digest"]}
    return version


async def deprecate_version(
    actor: Actor, template_id: UUID, number: int, *, note: str, replacement: int | None = None
) -> TemplateVersionRow:
    """Say that an old version should not be used any more, and which one should; takes EDIT.

    Raises Conflict for the newest version, from which sessions are started, and for a replacement that is deprecated
    itself: so replacements never go round.
    """
    note = _text(note, LONGEST_NOTE, "note")
    async with write(actor, "template.deprecate_version") as work:
        row = await lock_template(work, template_id, needs=TemplateLevel.EDIT)
        await version_in(work, row, number, field="version")
        if number == row["latest_version"]:
            raise Conflict(
                f"Version {number} is the newest one, from which sessions are started. Publish another one or roll "
                "back first, or deprecate the template.",
                field="version",
            )
        if replacement is not None:
            if replacement == number:
                raise BadInput("A version does not replace itself.", field="replacement")
            if (await version_in(work, row, replacement, field="replacement"))["deprecated_at"] is not None:
                raise Conflict(
                    f"Version {replacement} is deprecated itself. Name one that is not.", field="replacement"
                )
        work.entry.details = {"version": number, "note": note, "replacement": replacement}
        return await _set(
            work,
            "UPDATE session_template_versions SET deprecated_at = coalesce(deprecated_at, $3), deprecation_note = $4, "
            "replacement_version = $5 WHERE template_id = $1 AND number = $2 RETURNING *",
            row["id"],
            number,
            work.at,
            note or None,
            replacement,
        )


async def deprecate_template(
    actor: Actor, template_id: UUID, *, note: str, replacement_id: UUID | None = None
) -> TemplateRow:
    """Say that a template should not be used any more, and which one should; takes ADMIN.

    Raises NotFound for a replacement that the actor may not see, Conflict for one that is deprecated itself or has no
    version: so replacements never go round.
    """
    note = _text(note, LONGEST_NOTE, "note")
    if replacement_id == template_id:
        raise BadInput("A template does not replace itself.", field="replacementId")
    async with write(actor, "template.deprecate") as work:
        if replacement_id is not None:
            await _hold_both(work, template_id, replacement_id)
        row = await lock_template(work, template_id, needs=TemplateLevel.ADMIN)
        if replacement_id is not None:
            other = await lock_template(work, replacement_id, needs=TemplateLevel.VIEW, field="replacementId")
            if other["deprecated_at"] is not None:
                raise Conflict(f"“{other['title']}” is deprecated itself. Name one that is not.", field="replacementId")
            if not other["latest_version"]:
                raise Conflict(f"“{other['title']}” has no version yet. Publish one first.", field="replacementId")
        await work.tx.execute(
            "UPDATE session_templates SET deprecated_at = coalesce(deprecated_at, $2), deprecation_note = $3, "
            "replaced_by_id = $4, updated_at = $2 WHERE id = $1",
            row["id"],
            work.at,
            note or None,
            replacement_id,
        )
        work.entry.details = {"note": note, "replacement": encode("tpl", replacement_id) if replacement_id else None}
        return await read_in(work, row["id"])


async def reinstate(actor: Actor, template_id: UUID, number: int | None) -> TemplateRow:
    """Take back that a template (ADMIN), or this version of it (EDIT), is deprecated; again has no effect."""
    needs = TemplateLevel.ADMIN if number is None else TemplateLevel.EDIT
    async with write(actor, "template.reinstate") as work:
        row = await lock_template(work, template_id, needs=needs)
        if number is None:
            await work.tx.execute(
                "UPDATE session_templates SET deprecated_at = NULL, deprecation_note = NULL, replaced_by_id = NULL, "
                "updated_at = $2 WHERE id = $1",
                row["id"],
                work.at,
            )
        else:
            version = await version_in(work, row, number, field="version")
            await work.tx.execute(
                "UPDATE session_template_versions SET deprecated_at = NULL, deprecation_note = NULL, "
                "replacement_version = NULL WHERE id = $1",
                version["id"],
            )
        work.entry.details = {"version": number}
        return await read_in(work, row["id"])


async def version_in(work: Work, row: TemplateRow, number: int, *, field: str) -> TemplateVersionRow:
    """A version of the held template. Raises NotFound."""
    found = await work.tx.fetchrow(
        "SELECT * FROM session_template_versions WHERE template_id = $1 AND number = $2",
        row["id"],
        number if 0 < number < 2**31 else 0,
        row=TemplateVersionRow,
    )
    if found is None:
        there = f"it has 1 to {row['latest_version']}" if row["latest_version"] else "it has none yet"
        raise NotFound(f"The template has no version {number}: {there}.", field=field)
    return found


async def _newest(work: Work, row: TemplateRow) -> TemplateVersionRow | None:
    return await work.tx.fetchrow(
        "SELECT * FROM session_template_versions WHERE template_id = $1 AND number = $2",
        row["id"],
        row["latest_version"],
        row=TemplateVersionRow,
    )


async def _add(
    work: Work,
    row: TemplateRow,
    spec: object,
    digest: str,
    message: str,
    *,
    test_id: UUID | None,
    untested: str | None,
    rolled_back_to: int | None = None,
) -> TemplateVersionRow:
    number = row["latest_version"] + 1
    version = await _set(
        work,
        "INSERT INTO session_template_versions (id, organization_id, template_id, number, spec, digest, message, "
        "author_id, created_at, rolled_back_to, test_id, untested_reason, use_count) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0) RETURNING *",
        new_id(),
        row["organization_id"],
        row["id"],
        number,
        spec,
        digest,
        message,
        work.actor.user_id,
        work.at,
        rolled_back_to,
        test_id,
        untested,
    )
    await work.tx.execute(
        "UPDATE session_templates SET latest_version = $2, updated_at = $3 WHERE id = $1", row["id"], number, work.at
    )
    await index(work, row["id"])
    return version


async def _set(work: Work, statement: str, *values: object) -> TemplateVersionRow:
    row = await work.tx.fetchrow(statement, *values, row=TemplateVersionRow)
    assert row is not None
    return row


async def _hold_both(work: Work, one: UUID, other: UUID) -> None:
    """Hold two templates in the order of their ids, so that two writes never wait for each other."""
    query = Query()
    await work.tx.fetch(
        f"SELECT id FROM session_templates WHERE id = ANY({query.arg([one, other])}) "
        f"AND {query.scope(SessionTemplate.visible_to(work.actor), by_row=True)} ORDER BY id FOR UPDATE",
        *query.args,
    )


def _check_may_leave_untested(actor: Actor, reason: str | None) -> None:
    if reason is None:
        raise IllegalTransition(
            "No test of this draft has passed. Test it first (testSessionTemplate), and publish the same digest. "
            "An admin of the organisation may publish it untested by giving untestedReason.",
            field="digest",
            needs="testSessionTemplate",
        )
    if not actor.is_admin:
        raise Forbidden(
            "Only admins of the organisation publish untested. Test the draft first (testSessionTemplate), or ask one.",
            field="untestedReason",
        )


def _text(text: str, longest: int, field: str) -> str:
    cleaned = text.strip()
    if len(cleaned) > longest or "\0" in cleaned:
        raise BadInput(f"It has at most {longest} characters, and no NUL.", field=field)
    return cleaned
