"""Asking for tests of templates, and taking that back. Workers do them (services.templates.tester)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from core.errors import BadInput, IllegalTransition, LimitExceeded, NotFound
from core.ids import encode
from core.permissions import Actor, Permission
from models.base import Query
from models.templates import TemplateLevel, TemplateTest, TemplateTestRow, TemplateTestStatus, TemplateVersionRow
from services import idempotency
from services.parts import parts
from services.templates.access import lock_template
from services.templates.parameters import check_values
from services.templates.reports import announce
from services.templates.spec import TemplateSpec, load_spec
from services.work import Work, write

TESTS = "template-tests"
"""The bus channel that wakes the workers."""
MOST_OPEN = 50
"""Tests of one organisation that wait or run."""


async def start_test(
    actor: Actor,
    template_id: UUID,
    *,
    version: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> TemplateTestRow:
    """Queue a test of a template's draft, or of a version. `parameters` go before those of its test plan.

    Raises NotFound, Forbidden without EDIT access, BadInput for parameters, LimitExceeded where too many wait.
    """
    async with write(actor, "template.test") as work:
        actor.require(Permission.SESSIONS_WRITE)
        template = await lock_template(work, template_id, needs=TemplateLevel.EDIT)
        asked = {"template": str(template_id), "version": version, "parameters": dict(parameters or {})}
        found = await idempotency.claim(work, "testSessionTemplate", key, asked)
        if found.earlier is not None:
            work.entry.action = ""  # nothing happens a second time
            return await _read(work, found.earlier)
        if version is None:
            spec, digest = load_spec(template["draft"]), template["draft_digest"]
        else:
            published = await _version(work, template_id, version)
            spec, digest = load_spec(published["spec"]), published["digest"]
        await _check_room(work)
        row = await work.tx.fetchrow(
            "INSERT INTO template_tests (id, organization_id, template_id, digest, spec, parameters, status, checks, "
            "revision, started_by_id, created_at) VALUES ($1, $2, $3, $4, $5, $6, 'QUEUED', '[]', 0, $7, $8) "
            "RETURNING *",
            found.result_id,
            template["organization_id"],
            template_id,
            digest,
            spec.stored(),
            _parameters(spec, parameters or {}),
            actor.user_id,
            work.at,
            row=TemplateTestRow,
        )
        assert row is not None
        work.changed(after={"test": encode("tpt", row["id"]), "digest": digest, "version": version})
        work.after_commit(lambda: parts().bus.publish(TESTS, {}))
    return row


async def cancel_test(actor: Actor, test_id: UUID) -> TemplateTestRow:
    """Stop a test; what it runs is ended soon after. Raises NotFound, Forbidden, IllegalTransition where it is over."""
    async with write(actor, "template.test_cancel") as work:
        query = Query()
        template_id = await work.tx.fetchval(
            f"SELECT template_id FROM template_tests WHERE template_tests.id = {query.arg(test_id)} "
            f"AND {query.scope(TemplateTest.visible_to(actor), by_row=True)}",
            *query.args,
        )
        if template_id is None:
            raise NotFound("There is no such test, or you may not see it.", field="testId")
        await lock_template(work, template_id, needs=TemplateLevel.EDIT, field="testId")
        work.target("TemplateTest", test_id)
        row = await work.tx.fetchrow(
            "UPDATE template_tests SET status = 'CANCELLED', ended_at = $2, revision = revision + 1 "
            "WHERE id = $1 AND status IN ('QUEUED', 'RUNNING') RETURNING *",
            test_id,
            work.at,
            row=TemplateTestRow,
        )
        if row is None:
            status = (await _read(work, test_id))["status"]
            raise IllegalTransition(f"The test is over: it is {status}.", field="testId", status=status)
        work.changed(after={"status": TemplateTestStatus.CANCELLED})
        work.after_commit(lambda: announce(test_id, cancelled=True))
    return row


def _parameters(spec: TemplateSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is tested with. A plan that does not fit its own schema is the test's to tell, and no error of whoever
    asks for one."""
    together = {**spec.test.parameters, **given}
    try:
        return check_values(spec.parameters, together, "parameters")
    except BadInput:
        if given:
            raise
        return together


async def _version(work: Work, template_id: UUID, number: int) -> TemplateVersionRow:
    row = await work.tx.fetchrow(
        "SELECT * FROM session_template_versions WHERE template_id = $1 AND number = $2",
        template_id,
        number,
        row=TemplateVersionRow,
    )
    if row is None:
        raise NotFound(f"The template has no version {number}.", field="version")
    return row


async def _check_room(work: Work) -> None:
    waiting = await work.tx.fetchval(
        "SELECT count(*) FROM template_tests WHERE organization_id = $1 AND status IN ('QUEUED', 'RUNNING')",
        work.actor.organization_id,
    )
    if waiting >= MOST_OPEN:
        raise LimitExceeded(f"{waiting} tests of your organisation wait already. Let some end, or cancel them.")


async def _read(work: Work, test_id: UUID) -> TemplateTestRow:
    row = await work.tx.fetchrow("SELECT * FROM template_tests WHERE id = $1", test_id, row=TemplateTestRow)
    assert row is not None
    return row
