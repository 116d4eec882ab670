from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from core import db
from core.crypto import Vault
from core.ids import new_id
from models.audit import INSTALLATION
from models.base import Row
from services import audit_chain
from services.audit_chain import BEGINNING, canonical, link_hash
from services.audit_verification import chains, verify
from services.parts import parts
from tests.services.audit_help import intruder, links, sequence_all, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit.md"


@pytest.fixture
async def organization_id(database: object) -> UUID:
    """An organisation with a chain of five records."""
    id_ = uuid4()
    await write(id_, *(f"test.{n}" for n in range(1, 6)))
    await sequence_all()
    return id_


async def problem(organization_id: UUID) -> tuple[int | None, str]:
    report = await verify(organization_id)
    assert not report.intact
    return report.broken_number, report.problem or ""


async def test_an_untouched_log_is_intact(organization_id: UUID) -> None:
    await write(organization_id, "test.6")
    report = await verify(organization_id)
    assert report.intact
    assert (report.verified, report.pending) == (5, 1)
    assert report.head_hash == (await links(organization_id))[-1].hash


async def test_an_empty_log_is_intact() -> None:
    report = await verify(uuid4())
    assert report.intact
    assert (report.verified, report.head_hash) == (0, None)


async def test_long_logs_are_read_in_pieces() -> None:
    organization_id = uuid4()
    for _ in range(3):
        await write(organization_id, *(f"test.{n}" for n in range(150)))
    assert (await verify(organization_id)).pending == 450
    await sequence_all()
    assert (await verify(organization_id)).verified == 450


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE audit_records SET action = 'x' WHERE action = 'test.3'", (3, "the record was changed")),
        ("UPDATE audit_records SET digest = sha256('x') WHERE action = 'test.3'", (3, "the record was changed")),
        ("UPDATE audit_records SET seal = digest WHERE action = 'test.3'", (3, "the record's seal is not")),
        ("DELETE FROM audit_records WHERE action = 'test.3'", (3, "the record is missing")),
        ("DELETE FROM audit_records WHERE action = 'test.5'", (5, "the record is missing")),
        ("DELETE FROM audit_links WHERE number = 2", (2, "number 2 is missing")),
        ("DELETE FROM audit_links WHERE number = 1", (1, "number 1 is missing")),
        ("DELETE FROM audit_links WHERE number = 5", (None, "a record has neither")),
        ("UPDATE audit_links SET record_digest = sha256('x') WHERE number = 4", (4, "the link was changed")),
        ("UPDATE audit_links SET hash = sha256('x') WHERE number = 4", (4, "the link was changed")),
        ("UPDATE audit_links SET seal = hash WHERE number = 4", (4, "the link's seal is not")),
        ("UPDATE audit_links SET previous_hash = hash WHERE number = 4", (4, "the link does not continue")),
    ],
)
async def test_what_was_changed_is_found(organization_id: UUID, statement: str, expected: tuple[int, str]) -> None:
    async with intruder() as tx:
        await tx.execute(statement)
    number, text = await problem(organization_id)
    assert number == expected[0]
    assert text.startswith(expected[1])


async def test_a_chain_made_anew_without_the_key_is_found(organization_id: UUID) -> None:
    chain = await links(organization_id)
    async with intruder() as tx:
        await tx.execute("DELETE FROM audit_links WHERE number >= 3")
        await tx.execute("DELETE FROM audit_records WHERE id = $1", chain[2].record_id)
        previous = chain[1].hash
        for link in chain[3:]:
            hash_ = link_hash(previous, link.number - 1, link.record_digest)
            await tx.execute(
                "INSERT INTO audit_links VALUES ($1, $2, $3, $4, $5, $6, $7)",
                organization_id, link.number - 1, link.record_id, link.record_digest, previous, hash_, link.seal,
            )  # fmt: skip
            previous = hash_
    number, text = await problem(organization_id)
    assert number == 3
    assert text.startswith("the link's seal is not")


async def test_two_records_swapped_are_found(organization_id: UUID) -> None:
    async with intruder() as tx:
        await tx.execute("ALTER TABLE audit_records DROP CONSTRAINT audit_records_pkey")
        ids = [row["id"] for row in await tx.fetch("SELECT id FROM audit_records ORDER BY action LIMIT 2", row=Row)]
        await tx.execute(
            "UPDATE audit_records SET id = CASE id WHEN $1 THEN $2::uuid ELSE $1 END WHERE id IN ($1, $2)", *ids
        )
    assert await problem(organization_id) == (1, "the record was changed")


async def test_a_forged_record_is_found(organization_id: UUID) -> None:
    async with intruder() as tx:
        await tx.execute(
            "INSERT INTO audit_records (id, organization_id, at, action, outcome, digest, seal) "
            "VALUES ($1, $2, now(), 'a.b', 'SUCCEEDED', sha256('x'), sha256('x'))",
            new_id(),
            organization_id,
        )
        await tx.execute("DELETE FROM audit_pending")
    assert (await problem(organization_id))[1].startswith("a record has neither")


async def test_another_key_is_named_as_a_cause(organization_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts().vault, "audit_key", Vault(b"another secret of the installation").audit_key)
    assert "QUARTERDECK_SECRET_KEY" in (await problem(organization_id))[1]


async def test_every_organization_and_the_installation_have_a_log() -> None:
    id_ = new_id()
    await db.execute(
        "INSERT INTO organizations (id, name, slug, region, created_at) VALUES ($1, 'Demo', 'demo', 'local', now())",
        id_,
    )
    assert await chains() == [INSTALLATION, id_]


# -- what outsiders are told


async def test_the_canonical_form_is_the_documented_one() -> None:
    id_ = uuid4()
    await write(id_, "test.1")
    row = await db.fetchrow("SELECT * FROM audit_records", row=Row)
    assert row is not None
    found = json.loads(canonical(row))
    documented = re.search(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert documented is not None
    assert set(found) == set(json.loads(documented[1]))
    assert found["at"] == row.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert found["organizationId"] == str(id_)


async def export(organization_id: UUID) -> list[dict[str, object]]:
    rows = await db.fetch(
        "SELECT audit_records.*, number, previous_hash, hash FROM audit_records "
        "LEFT JOIN audit_links ON record_id = audit_records.id WHERE audit_records.organization_id = $1 "
        "ORDER BY at DESC, audit_records.id DESC",
        organization_id,
        row=Row,
    )
    return [
        {
            "number": row.number,
            "canonical": audit_chain.canonical(row).decode(),
            "previousHash": row.previous_hash and row.previous_hash.hex(),
            "hash": row.hash and row.hash.hex(),
        }
        for row in rows
    ]


def check(tmp_path: Path, events: list[dict[str, object]]) -> subprocess.CompletedProcess[str]:
    program = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert program is not None
    script = tmp_path / "check.py"
    script.write_text(program[1])
    lines = "".join(json.dumps(event) + "\n" for event in events)
    return subprocess.run(
        [sys.executable, str(script)], input=lines, capture_output=True, text=True, timeout=60, check=False
    )


async def test_the_documented_program_checks_an_export(organization_id: UUID, tmp_path: Path) -> None:
    await write(organization_id, "test.pending")
    events = await export(organization_id)
    report = await verify(organization_id)
    assert report.head_hash is not None
    whole = check(tmp_path, events)
    assert (whole.returncode, whole.stdout.strip()) == (0, f"1 to 5 in order, head {report.head_hash.hex()}")
    tail = check(tmp_path, events[:4])
    assert tail.stdout.startswith("3 to 5 in order")
    gap = check(tmp_path, [event for event in events if event["number"] != 3])
    assert gap.returncode != 0
    assert "number 3" in gap.stderr
    events[3]["canonical"] = str(events[3]["canonical"]).replace("test.", "tset.")
    changed = check(tmp_path, events)
    assert changed.returncode != 0
    assert f"number {events[3]['number']}" in changed.stderr


async def test_the_first_link_continues_nothing(organization_id: UUID) -> None:
    assert (await links(organization_id))[0].previous_hash == BEGINNING
