"""The report of a test: what was looked at, written down as it goes, by the one worker that has the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from core import clock, db
from core.ids import decode, encode, new_id
from models.templates import TemplateTestRow, TemplateTestStatus
from services.identity.actors import system_actor
from services.parts import parts
from services.work import write


class CheckKind(StrEnum):
    """What a check looks at."""

    VALIDATION = "VALIDATION"
    SERVER = "SERVER"
    SESSION = "SESSION"
    MESSAGE = "MESSAGE"
    ANSWER = "ANSWER"
    TOOL = "TOOL"
    FILE = "FILE"
    COST = "COST"
    TIME = "TIME"


class CheckStatus(StrEnum):
    """What became of a check."""

    RUNNING = "RUNNING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class Lost(Exception):
    """The test is not this worker's any more: another has it, or it was cancelled."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check is about; `key` names it within its report."""

    key: str
    kind: CheckKind
    title: str


class Report:
    """A test's report in the hands of the worker that has the test. Every write raises Lost where it has not."""

    def __init__(self, test: TemplateTestRow) -> None:
        self.test_id: UUID = test["id"]
        self._organization_id: UUID = test["organization_id"]
        self._executor: str = test["executor"]
        self._checks: dict[str, dict[str, Any]] = {check["key"]: check for check in test["checks"]}

    def has_passed(self, check: Check) -> bool:
        """Whether an earlier worker got as far as this."""
        return self._status(check) == CheckStatus.PASSED

    @property
    def failed(self) -> bool:
        """Whether anything did not go well."""
        return any(check["status"] == CheckStatus.FAILED for check in self._checks.values())

    async def begin(self, *checks: Check) -> None:
        """These are looked at now."""
        now = clock.now().isoformat()
        for check in checks:
            self._put(check, status=CheckStatus.RUNNING, startedAt=now)
        await self.save()

    async def reserve_session(self, check: Check) -> UUID:
        """The id that the test's session has, or will have: known before it is there, so that none is ever lost."""
        reserved = self._checks.get(check.key, {}).get("details", {}).get("sessionId")
        session_id = decode("ses", reserved) if reserved else new_id()
        details = {"sessionId": encode("ses", session_id)}
        self._put(check, status=CheckStatus.RUNNING, startedAt=clock.now().isoformat(), details=details)
        await self.save()
        return session_id

    async def end(self, check: Check, status: CheckStatus, message: str, **details: Any) -> None:
        """One has come to its end. `details` say the same in ways that programs read."""
        found = self._checks.get(check.key, {})
        now = clock.now().isoformat()
        self._put(
            check,
            status=status,
            message=message,
            startedAt=found.get("startedAt", now),
            endedAt=now,
            details={name: value for name, value in details.items() if value is not None},
        )
        await self.save()

    async def passed(self, check: Check, message: str, **details: Any) -> None:
        await self.end(check, CheckStatus.PASSED, message, **details)

    async def failure(self, check: Check, message: str, **details: Any) -> None:
        await self.end(check, CheckStatus.FAILED, message, **details)

    async def break_off(self, message: str) -> None:
        """What is looked at now has failed with this."""
        for check in self._checks.values():
            if check["status"] == CheckStatus.RUNNING:
                check |= {"status": CheckStatus.FAILED.value, "message": message, "endedAt": clock.now().isoformat()}
        await self.save()

    async def skip(self, checks: Sequence[Check], message: str) -> None:
        """These are not looked at."""
        for check in checks:
            if self._status(check) in (None, CheckStatus.RUNNING):
                self._put(check, status=CheckStatus.SKIPPED, message=message)
        await self.save()

    async def start_anew(self) -> None:
        """Nothing is kept of what was looked at: what ran was lost."""
        self._checks.clear()
        await self._write(
            "attempt = attempt + 1, session_id = NULL, started_at = now(), checks = $3", list(self._checks.values())
        )

    async def link(self, session_id: UUID) -> None:
        """The session that the test runs in."""
        await self._write("session_id = $3", session_id)

    async def save(self) -> None:
        """Write down what there is, and tell those who follow."""
        await self._write("checks = $3", list(self._checks.values()))

    async def finish(self) -> TemplateTestStatus:
        """The end, by what was found; with an audit record."""
        status = TemplateTestStatus.FAILED if self.failed else TemplateTestStatus.PASSED
        async with write(system_actor(self._organization_id), "template.test_end") as work:
            row = await work.tx.fetchrow(
                "UPDATE template_tests SET status = $3, ended_at = $4, revision = revision + 1 "
                "WHERE id = $1 AND executor = $2 AND status = 'RUNNING' RETURNING template_id, digest",
                self.test_id,
                self._executor,
                status.value,
                work.at,
            )
            if row is None:
                work.entry.action = ""
                raise Lost
            work.target("TemplateTest", self.test_id)
            failed = [check["title"] for check in self._checks.values() if check["status"] == CheckStatus.FAILED]
            work.changed(
                after={
                    "template": encode("tpl", row["template_id"]),
                    "digest": row["digest"],
                    "status": status.value,
                    "failed": failed[:20],
                }
            )
        await announce(self.test_id)
        return status

    def _status(self, check: Check) -> str | None:
        found = self._checks.get(check.key)
        return None if found is None else str(found["status"])

    def _put(self, check: Check, **values: Any) -> None:
        self._checks[check.key] = {
            "key": check.key,
            "kind": check.kind.value,
            "title": check.title,
            "message": "",
            "startedAt": None,
            "endedAt": None,
            "details": {},
        } | {name: value.value if isinstance(value, StrEnum) else value for name, value in values.items()}

    async def _write(self, what: str, value: Any) -> None:
        found = await db.fetchval(
            f"UPDATE template_tests SET {what}, revision = revision + 1 "
            "WHERE id = $1 AND executor = $2 AND status = 'RUNNING' RETURNING revision",
            self.test_id,
            self._executor,
            value,
        )
        if found is None:
            raise Lost
        await announce(self.test_id)


async def announce(test_id: UUID, **more: Any) -> None:
    """Tell those who follow a test that its report has changed."""
    await parts().bus.publish(test_channel(test_id), {"changed": True} | more)


def test_channel(test_id: UUID) -> str:
    """The bus channel that says that a test's report has changed."""
    return f"template-test:{test_id}"
