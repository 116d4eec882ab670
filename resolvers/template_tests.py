"""Reads of tests of templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from core.ids import decode
from core.permissions import Actor, Permission
from models.sessions import RunRow, in_visible_session
from models.templates import SessionTemplate, TemplateRow, TemplateTest, TemplateTestRow
from resolvers import reading
from resolvers.reading import children, needing, parent
from services.templates.findings import Finding
from services.templates.reports import CheckKind, CheckStatus

COLUMNS = (
    "id, organization_id, template_id, digest, parameters, status, checks, revision, session_id, executor, "
    "lease_until, attempt, started_by_id, created_at, started_at, ended_at"
)
"""All of a test but the configuration that was tested."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check of a report. What does not belong to its kind is None."""

    key: str
    kind: CheckKind
    title: str
    status: CheckStatus
    message: str
    started_at: datetime | None
    ended_at: datetime | None
    findings: Sequence[Finding]
    server: str | None
    tool_count: int | None
    milliseconds: int | None
    cost_usd: Decimal | None
    limit_usd: Decimal | None
    run_id: UUID | None


def checks_of(test: TemplateTestRow) -> list[CheckResult]:
    """What was looked at, in order."""
    return [_check(stored) for stored in test["checks"]]


async def test(actor: Actor, id_: UUID) -> TemplateTestRow | None:
    """A test, or None where the actor may not see its template."""
    return await reading.find(  # type: ignore[no-any-return]
        "template_tests", TemplateTestRow, TemplateTest.visible_to(actor), id_
    )


tests_of_templates = children("template_tests", TemplateTestRow, "template_id", order="id", columns=COLUMNS)
test_of = parent("template_tests", TemplateTestRow, "test_id", TemplateTest.visible_to, columns=COLUMNS)
template_of = parent("session_templates", TemplateRow, "template_id", SessionTemplate.visible_to)
run_of_check = needing(Permission.SESSIONS_READ, parent("runs", RunRow, "run_id", partial(in_visible_session, "runs")))


def _check(stored: dict[str, Any]) -> CheckResult:
    details = stored["details"]
    return CheckResult(
        key=stored["key"],
        kind=CheckKind(stored["kind"]),
        title=stored["title"],
        status=CheckStatus(stored["status"]),
        message=stored["message"],
        started_at=_moment(stored["startedAt"]),
        ended_at=_moment(stored["endedAt"]),
        findings=[Finding.load(finding) for finding in details.get("findings", ())],
        server=details.get("server"),
        tool_count=details.get("toolCount"),
        milliseconds=details.get("milliseconds"),
        cost_usd=_amount(details.get("costUsd")),
        limit_usd=_amount(details.get("limitUsd")),
        run_id=decode("run", details["runId"]) if "runId" in details else None,
    )


def _amount(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
