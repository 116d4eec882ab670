from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from core import db
from core.errors import Conflict, Forbidden
from core.ids import new_id
from models.audit import INSTALLATION
from models.base import Row
from services import audit
from services import work as works
from services.audit_verification import verify
from tests.services.audit_help import an_actor, eventually, sequence_all, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

TABLES = ("audit_records", "audit_links", "audit_pending")


async def records() -> list[Row]:
    return await db.fetch("SELECT * FROM audit_records ORDER BY at, id", row=Row)


async def test_a_record_says_who_did_what_from_where() -> None:
    actor = an_actor()
    entry = audit.Entry.of(actor, "token.revoke")
    entry.target_kind, entry.target_id, entry.target_name = "AccessToken", uuid4(), "deploy"
    entry.before, entry.after = {"revoked": False, "secret_hash": b"12"}, {"revoked": True}
    async with db.transaction() as tx:
        await audit.record(tx, entry)
    (row,) = await records()
    assert (row.action, row.outcome, row.organization_id) == ("token.revoke", "SUCCEEDED", actor.organization_id)
    assert (row.actor_kind, row.actor_id, row.actor_name) == ("HUMAN", actor.user_id, "Demo Admin")
    assert (row.credential_id, row.ip, row.user_agent) == (actor.credential_id, "192.0.2.7", "tests")
    assert (row.request_id, row.target_id) == ("req-1", entry.target_id)
    assert row.before == {"revoked": False, "secret_hash": "[redacted]"}
    assert row.after == {"revoked": True}


async def test_several_records_are_one_statement() -> None:
    seen: list[str] = []
    mark = db.queries_seen.set(seen)
    try:
        await write(uuid4(), "a.b", "a.c", "a.d")
    finally:
        db.queries_seen.reset(mark)
    assert len([sql for sql in seen if "audit_records" in sql]) == 1
    assert [row.action for row in await records()] == ["a.b", "a.c", "a.d"]


async def test_what_is_rolled_back_leaves_no_record() -> None:
    with pytest.raises(RuntimeError):
        async with db.transaction() as tx:
            await audit.record(tx, audit.Entry("a.b", uuid4()))
            raise RuntimeError
    assert await records() == []
    assert await db.fetchval("SELECT count(*) FROM audit_pending") == 0


async def test_records_of_nobody_go_to_the_log_of_the_installation() -> None:
    async with db.transaction() as tx:
        await audit.record(tx, audit.Entry.of(None, "sign_in.password"))
    assert [(row.organization_id, row.actor_kind) for row in await records()] == [(INSTALLATION, None)]
    await sequence_all()
    assert (await verify(INSTALLATION)).verified == 1


@pytest.mark.parametrize("table", ["audit_records", "audit_links"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET seal = seal", "DELETE FROM {}", "TRUNCATE {}"])
async def test_the_application_may_only_append(table: str, statement: str) -> None:
    await write(uuid4(), "a.b")
    await sequence_all()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
        await db.execute(statement.format(table))


@pytest.mark.parametrize("table", ["audit_records", "audit_links"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET seal = seal", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize("replication", ["origin", "replica"])
async def test_the_owner_may_only_append(table: str, statement: str, replication: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        async with db.transaction() as tx:
            await tx.execute("SET LOCAL ROLE NONE")
            await tx.execute(f"SET LOCAL session_replication_role = {replication}")
            await tx.execute(statement.format(table))


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_pending SET digest = digest", "DELETE FROM audit_pending", "TRUNCATE audit_pending"]
)
@pytest.mark.parametrize("role", ["quarterdeck_app", "NONE"])
async def test_a_witness_stays_until_its_record_has_a_number(statement: str, role: str) -> None:
    await write(uuid4(), "a.b")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with db.transaction() as tx:
            await tx.execute(f"SET LOCAL ROLE {role}")
            await tx.execute(statement)
    assert await sequence_all() == 1


async def test_whatever_is_recorded_reads_back_to_the_same_digest() -> None:
    organization_id = uuid4()
    entry = audit.Entry("tool.execute", organization_id, actor_name="\ud800\0", user_agent="é" * 1000)
    entry.details = {
        "numbers": [0.1, 1e-7, 5e-324, -0.0, 60.0, 1e22, 2**53, -(2**70), float("inf"), 123456789.123],
        "texts": ["\u2028", "\x7f", "\ud83d\ude00", "a\0b", "é", "\U0001f600"],
        "\ud800": {"": None, "b": {}, "a": []},
    }
    async with db.transaction() as tx:
        await audit.record(tx, entry)
    assert (await verify(organization_id)).pending == 1
    await sequence_all()
    report = await verify(organization_id)
    assert report.intact
    assert report.verified == 1


# -- refusals


async def test_a_refusal_is_recorded_with_its_reason() -> None:
    actor = an_actor()
    await audit.refused(audit.Entry.of(actor, "session.update"), Forbidden("Ask its owner."))
    (row,) = await records()
    assert (row.action, row.outcome) == ("session.update", "REFUSED")
    assert (row.error_code, row.error_message) == ("FORBIDDEN", "Ask its owner.")


async def test_a_refusal_inside_a_write_outlives_the_rolled_back_write() -> None:
    actor = an_actor()
    with pytest.raises(Conflict):
        async with works.write(actor, "thing.change") as work:
            work.target("Thing", uuid4(), "the thing")
            raise Conflict("Somebody was first.")
    assert [(row.action, row.outcome, row.target_name) for row in await records()] == [
        ("thing.change", "REFUSED", "the thing")
    ]
    async with works.write(actor, "thing.change") as work:
        work.changed(before={"a": 1}, after={"a": 2})
    assert [(row.outcome, row.after) for row in await records()][1:] == [("SUCCEEDED", {"a": 2})]


async def test_a_refusal_is_recorded_even_where_the_client_hangs_up() -> None:
    async def refuse() -> None:
        await audit.refused(audit.Entry.of(an_actor(), "session.update"), Forbidden("no"))

    task = asyncio.create_task(refuse())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(records)


async def test_a_refusal_that_cannot_be_recorded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with db.transaction() as tx:
        await tx.execute("SET LOCAL ROLE NONE")
        await tx.execute("ALTER TABLE audit_records RENAME TO elsewhere")
    with caplog.at_level(logging.ERROR):
        await audit.refused(audit.Entry.of(an_actor(), "session.update"), Forbidden("no"))
    assert "session.update" in caplog.text


async def test_an_entry_keeps_what_the_caller_put_in() -> None:
    """`refused` must not turn the caller's own entry into a refused one."""
    entry = audit.Entry("a.b", new_id())
    await audit.refused(entry, Forbidden("no"))
    values: dict[str, Any] = vars(entry)
    assert (values["outcome"], values["error_code"]) == ("SUCCEEDED", None)
