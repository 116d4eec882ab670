"""What a test does: look at the configuration and its servers, run a real session with it, and see what came of it.

Every step can be taken again by another worker: what an earlier one got done is in the report, in the session that it
started, and under the keys of the messages that it sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from core import beneath, clock, db
from core.errors import BadInput, Forbidden, QuarterdeckError, SlowConsumer, new_error_id
from core.ids import encode
from core.permissions import Actor, Origin, Permission
from models.base import Row
from models.identity import UserRow
from models.sessions import RunRow, RunStatus, SessionRow
from models.templates import TemplateLevel, TemplateTestRow
from services.identity.actors import actor_of_user
from services.parts import parts
from services.sessions.lifecycle import session_directory
from services.sessions.messages import send_message
from services.templates.access import find_template
from services.templates.findings import FindingCode, errors_among
from services.templates.putting_away import put_away
from services.templates.reports import Check, CheckKind, CheckStatus, Lost, Report
from services.templates.servers import ServerState
from services.templates.sessions_of_tests import opening_messages, planned_messages, session_of_test
from services.templates.spec import TemplateSpec, load_spec
from services.templates.tool_names import missing_tools
from services.templates.validation import servers_asked_now, validate
from services.work import session_channel

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
LOOK_ANYWAY_SECONDS = 5.0

_LOST = ("WORKER_LOST", "WORKER_STOPPED")
_ADVICE = "Add an approval rule for it, or name it in options.allowedTools: nobody decides in a test."
_OF_SERVERS = {FindingCode.UNKNOWN_SERVER, FindingCode.SERVER_UNREACHABLE, FindingCode.SERVER_UNCHECKED}

_VALIDATION = Check("validation", CheckKind.VALIDATION, "The configuration is sound")
_SESSION = Check("session", CheckKind.SESSION, "A session starts")
_COST = Check("cost", CheckKind.COST, "The cost stays within its limit")
_TIME = Check("time", CheckKind.TIME, "It is done in time")


class _Failed(Exception):
    """A check failed, and what comes after it makes no sense."""


class _RunLost(Exception):
    """The worker that executed a run stopped in the middle of it, which says nothing about the template."""


async def take_steps(test: TemplateTestRow, report: Report) -> None:
    """Do a test, or what is left of it, until its report is complete. Raises Lost where another has it, or nobody."""
    spec = load_spec(test["spec"])
    attempt: int = test["attempt"]
    session_id: UUID | None = test["session_id"]
    began: datetime = test["started_at"]
    while True:
        left = spec.test.timeout_seconds - (clock.now() - began).total_seconds()
        try:
            async with asyncio.timeout(max(left, 0)):
                await _Steps(test, report, spec, attempt, session_id).take()
            await report.passed(_TIME, f"Done within {spec.test.timeout_seconds} seconds.")
        except _RunLost:
            if attempt >= MOST_ATTEMPTS:
                await report.break_off("Workers stopped in the middle of it, again and again.")
            else:
                stale = await db.fetchval("SELECT session_id FROM template_tests WHERE id = $1", test["id"])
                await report.start_anew()
                attempt, session_id, began = attempt + 1, None, clock.now()
                if stale is not None:
                    await put_away(test["organization_id"], stale)
                continue
        except TimeoutError:
            await report.break_off("Not done in time.")
            await report.failure(_TIME, f"Not done within {spec.test.timeout_seconds} seconds.")
        except _Failed:
            pass
        except Lost:
            raise
        except Exception:
            error_id = new_error_id()
            logger.exception("Test %s failed unexpectedly (errorId %s).", encode("tpt", test["id"]), error_id)
            await report.break_off(f"Something went wrong on our side; the log has it under {error_id}.")
            await report.failure(_TIME, "It could not be done.")
        await report.skip(planned(spec), "Not looked at: something before it failed.")
        return


def planned(spec: TemplateSpec) -> list[Check]:
    """All that a test looks at, in order."""
    return [
        _VALIDATION,
        *(_server(server.server) for server in spec.mcp_servers),
        _SESSION,
        *_messages(spec),
        *_of_plan(spec),
        *([_COST] if _limit(spec) is not None else []),
        _TIME,
    ]


class _Steps:
    def __init__(
        self, test: TemplateTestRow, report: Report, spec: TemplateSpec, attempt: int, session_id: UUID | None
    ) -> None:
        self._test, self._report, self._spec, self._attempt = test, report, spec, attempt
        self._session_id = session_id
        self._key = f"template-test:{test['id']}:{attempt}"

    async def take(self) -> None:
        actor = await self._validate()
        session = await self._start(actor)
        await self._talk(actor, session)
        await self._look(session)

    async def _validate(self) -> Actor:
        """Whoever asked for the test, who may still do so."""
        report, spec = self._report, self._spec
        checks = [_server(server.server) for server in spec.mcp_servers]
        if self._session_id is None:
            await report.begin(_VALIDATION, *checks)
        try:
            actor = await _starter(self._test)
        except QuarterdeckError as error:
            await report.failure(_VALIDATION, error.message)
            raise _Failed from None
        if self._session_id is not None:
            return actor
        servers = await servers_asked_now(self._test["organization_id"], spec)
        found = await validate(self._test["organization_id"], spec, servers=servers)
        findings = [finding for finding in found.findings if finding.code not in _OF_SERVERS]
        wrong = errors_among(findings)
        await report.end(
            _VALIDATION,
            CheckStatus.FAILED if wrong else CheckStatus.PASSED,
            "; ".join(f"{finding.path}: {finding.message}" for finding in wrong[:5])
            if wrong
            else f"{len(findings)} warnings."
            if findings
            else "Nothing is wrong with it.",
            findings=[finding.stored() for finding in findings],
        )
        for wanted, check in zip(spec.mcp_servers, checks, strict=True):
            await self._server(check, wanted.server, wanted.tools, servers.get(wanted.server))
        if report.failed:
            raise _Failed
        return actor

    async def _server(self, check: Check, name: str, tools: tuple[str, ...] | None, state: ServerState | None) -> None:
        if state is None:
            await self._report.failure(check, f"The organisation has no MCP server {name!r}.", server=name)
        elif state.problem is not None:
            await self._report.failure(check, state.problem, server=name)
        else:
            count = len(state.tools or ())
            missing = missing_tools(tools, state)
            await self._report.end(
                check,
                CheckStatus.FAILED if missing else CheckStatus.PASSED,
                f"It has no {', '.join(missing)}." if missing else f"It answers, and has {count} tools.",
                server=name,
                toolCount=count,
                milliseconds=state.latency_ms,
            )

    async def _start(self, actor: Actor) -> SessionRow:
        test, report = self._test, self._report
        session_id = self._session_id or await report.reserve_session(_SESSION)
        try:
            session = await session_of_test(actor, test["template_id"], self._spec, test["parameters"], session_id)
        except QuarterdeckError as error:
            await report.failure(_SESSION, error.message)
            raise _Failed from None
        if self._session_id is None:
            await report.link(session_id)
        await report.passed(_SESSION, f"With the runtime {session['runtime']}.")
        return session

    async def _talk(self, actor: Actor, session: SessionRow) -> None:
        """Each message after the run of the one before it."""
        sent = len(opening_messages(self._spec))
        try:
            further = planned_messages(self._spec, self._test["parameters"])
        except QuarterdeckError as error:
            await self._report.failure(_VALIDATION, f"test.messages: {error.message}")
            raise _Failed from None
        for index, check in enumerate(_messages(self._spec)):
            if self._report.has_passed(check):
                continue
            await self._report.begin(check)
            if index >= sent:
                try:
                    await send_message(actor, session["id"], further[index - sent], key=f"{self._key}:{index}")
                except QuarterdeckError as error:
                    await self._report.failure(check, error.message)
                    raise _Failed from None
            await self._judge(check, await _ended_run(session["id"], index + 1))

    async def _judge(self, check: Check, run: RunRow) -> None:
        told: dict[str, Any] = {"runId": encode("run", run["id"])}
        if run["ended_at"] is not None and run["started_at"] is not None:
            told["milliseconds"] = round((run["ended_at"] - run["started_at"]).total_seconds() * 1000)
        if run["status"] == RunStatus.FINISHED:
            await self._report.passed(check, "Its run finished.", **told)
            return
        if run["status"] == RunStatus.WAITING:
            waiting = await _waiting_for(run["id"])
            said = "; ".join(f"{row['tool']}: {row['reason']}" for row in waiting)
            await self._report.failure(check, f"A decision is wanted. {said} {_ADVICE}", **told)
        elif run["error_code"] in _LOST:
            raise _RunLost
        else:
            code = f" ({run['error_code']})" if run["error_code"] else ""
            await self._report.failure(
                check, f"Its run is {run['status']}{code}: {run['error_message'] or 'no reason was given.'}", **told
            )
        raise _Failed

    async def _look(self, session: SessionRow) -> None:
        checks = _of_plan(self._spec)
        if checks:
            await self._report.begin(*checks)
        for planned_check, check in zip(self._spec.test.checks, checks, strict=True):
            if planned_check.answer_contains is not None:
                problem = await _not_answered(session["id"], planned_check.answer_contains)
            elif planned_check.tool_called is not None:
                problem = await _not_called(session["id"], planned_check.tool_called)
            else:
                problem = await _not_there(session, self._spec, planned_check.file_exists or "")
            await self._report.end(check, CheckStatus.FAILED if problem else CheckStatus.PASSED, problem or "It is so.")
        if (limit := _limit(self._spec)) is not None:
            await self._cost(session, limit)

    async def _cost(self, session: SessionRow, limit: Any) -> None:
        cost = await db.fetchval("SELECT cost_usd FROM sessions WHERE id = $1", session["id"])
        if cost is None:
            await self._report.end(
                _COST,
                CheckStatus.SKIPPED,
                f"What it cost is not known, so the limit of ${limit} could not be looked at.",
                limitUsd=str(limit),
            )
            return
        await self._report.end(
            _COST,
            CheckStatus.FAILED if cost > limit else CheckStatus.PASSED,
            f"It cost ${cost.normalize():f}; the limit is ${limit}.",
            costUsd=str(cost),
            limitUsd=str(limit),
        )


# -- checks


def _server(name: str) -> Check:
    return Check(f"server:{name}", CheckKind.SERVER, f"The MCP server {name} answers, and has the tools")


def _messages(spec: TemplateSpec) -> list[Check]:
    count = len(opening_messages(spec)) + len(spec.test.messages)
    return [
        Check(f"message:{number}", CheckKind.MESSAGE, f"Message {number} of {count} is worked on")
        for number in range(1, count + 1)
    ]


def _of_plan(spec: TemplateSpec) -> list[Check]:
    found = []
    for index, check in enumerate(spec.test.checks):
        if check.answer_contains is not None:
            kind, title = CheckKind.ANSWER, f"The answer contains {_short(check.answer_contains)}"
        elif check.tool_called is not None:
            kind, title = CheckKind.TOOL, f"The tool {check.tool_called} is called, and succeeds"
        else:
            kind, title = CheckKind.FILE, f"The file {check.file_exists} is there"
        found.append(Check(f"check:{index + 1}", kind, title))
    return found


def _limit(spec: TemplateSpec) -> Any:
    limits = [limit for limit in (spec.test.max_cost_usd, spec.budget.max_cost_usd) if limit is not None]
    return min(limits) if limits else None


def _short(text: str) -> str:
    shown = " ".join(text.split())
    return f"“{shown if len(shown) <= 60 else shown[:59] + '…'}”"


# -- what there is to look at


async def _starter(test: TemplateTestRow) -> Actor:
    """Whoever asked for the test, as they are now. Raises Forbidden, NotFound where they may do so no longer."""
    user = await db.fetchrow("SELECT * FROM users WHERE id = $1", test["started_by_id"], row=UserRow)
    assert user is not None
    if user["deactivated_at"] is not None:
        raise Forbidden(f"{user['name']}, who asked for the test, has been deactivated.")
    actor = actor_of_user(user, None, Origin())
    actor.require(Permission.SESSIONS_WRITE)
    actor.require(Permission.TEMPLATES_WRITE)
    await find_template(actor, test["template_id"], needs=TemplateLevel.EDIT)
    return actor


async def _ended_run(session_id: UUID, number: int) -> RunRow:
    """A session's run, once it has ended or waits for a decision. The session's log says when to look."""
    while True:
        async with parts().bus.subscribe(session_channel(session_id)) as notices:
            try:
                while True:
                    run = await db.fetchrow(
                        "SELECT * FROM runs WHERE session_id = $1 AND number = $2", session_id, number, row=RunRow
                    )
                    if run is not None and (
                        run["ended_at"] is not None
                        or (run["status"] == RunStatus.WAITING and await _waiting_for(run["id"]))
                    ):
                        return run
                    await notices.next(LOOK_ANYWAY_SECONDS)
            except SlowConsumer:
                continue


async def _waiting_for(run_id: UUID) -> list[Row]:
    return await db.fetch(
        "SELECT tool_executions.tool, approvals.reason FROM approvals "
        "JOIN tool_executions ON tool_executions.id = approvals.tool_execution_id "
        "WHERE approvals.run_id = $1 AND approvals.status = 'PENDING' ORDER BY approvals.seq",
        run_id,
        row=Row,
    )


async def _not_answered(session_id: UUID, wanted: str) -> str | None:
    text = await db.fetchval(
        "SELECT text FROM messages WHERE session_id = $1 AND role = 'ASSISTANT' AND NOT reasoning "
        "ORDER BY seq DESC LIMIT 1",
        session_id,
    )
    if text is None:
        return "There is no answer."
    return None if wanted in text else f"The answer does not contain it; it is {_short(text)}"


async def _not_called(session_id: UUID, wanted: str) -> str | None:
    rows = await db.fetch(
        "SELECT tool, status, error_message FROM tool_executions WHERE session_id = $1 ORDER BY seq",
        session_id,
        row=Row,
    )
    called = [row for row in rows if fnmatchcase(row["tool"], wanted)]
    if any(row["status"] == "SUCCEEDED" for row in called):
        return None
    if called:
        last = called[-1]
        return f"It was called, and is {last['status']}: {last['error_message'] or 'no reason was given.'}"
    others = ", ".join(dict.fromkeys(row["tool"] for row in rows))
    return f"It was not called; {others or 'no tool at all'} was."


async def _not_there(session: SessionRow, spec: TemplateSpec, path: str) -> str | None:
    root = session_directory(session["organization_id"], session["id"])
    asked = str(PurePosixPath(spec.options.working_directory) / path)

    def look() -> str | None:
        try:
            with beneath.opened(root, asked, os.O_PATH):
                return None
        except BadInput as error:
            return error.message
        except OSError as error:
            return f"{path}: {error.strerror}"

    return await asyncio.to_thread(look)
