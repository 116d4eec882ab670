"""`quarterdeck doctor`: what is configured, reachable and licensed, and what is not and why."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from app.dev import database
from app.wiring import Program, among_processes, connected
from core import db
from core.errors import QuarterdeckError
from core.ids import encode
from core.settings import Settings
from models.audit import INSTALLATION
from models.migrate import role_statements
from services.audit_verification import chains, verify

Echo = Callable[[str], object]
_MARKS = {"good": "ok  ", "note": "note", "bad": "FAIL"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination. `note` is worth knowing and nothing broken."""

    state: Literal["good", "note", "bad"]
    about: str
    words: str


async def examine(settings: Settings, echo: Echo) -> bool:
    """Print what is found; returns whether nothing is broken."""
    sound = True
    async for finding in _findings(settings):
        echo(f"{_MARKS[finding.state]}  {finding.about:<14}  {finding.words}")
        sound = sound and finding.state != "bad"
    return sound


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    yield Finding("good", "home", str(settings.data))
    free = shutil.disk_usage(settings.data if settings.data.exists() else settings.data.parent).free
    yield Finding("good" if free > 1 << 30 else "bad", "disk", f"{free / (1 << 30):.1f} GiB free in the data folder")
    yield Finding(
        "good" if settings.public_url else "note",
        "public url",
        settings.base_url
        if settings.public_url
        else f"{settings.base_url} (set QUARTERDECK_PUBLIC_URL behind a proxy)",
    )
    try:
        with database(settings) as url:
            async with connected(
                settings if settings.database_url is None else among_processes(settings, url), url
            ) as program:
                for look in (_database, _timescaledb, _role, _key, _bus, _queue, _audit, _sandbox, _runtimes):
                    async for finding in look(program):
                        yield finding
    except QuarterdeckError as error:
        yield Finding("bad", "start", error.message)
    except Exception as error:
        yield Finding("bad", "start", f"{type(error).__name__}: {error}")


async def _database(program: Program) -> AsyncIterator[Finding]:
    version = await db.fetchval("SHOW server_version")
    where = "embedded" if program.parts.settings.database_url is None else "QUARTERDECK_DATABASE_URL"
    yield Finding("good", "database", f"PostgreSQL {version} ({where}), answers in {await db.ping() * 1000:.1f} ms")


async def _timescaledb(program: Program) -> AsyncIterator[Finding]:
    version = await db.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
    if version is None:
        yield Finding("note", "timescaledb", "not there: tables are plain, analytics over long ranges are slower")
        return
    licence = await db.fetchval("SHOW timescaledb.license")
    compression = "compression available" if licence == "timescale" else "no compression under the Apache licence"
    yield Finding("good", "timescaledb", f"{version}, licence {licence}: {compression}")


async def _role(program: Program) -> AsyncIterator[Finding]:
    may = await db.fetchval("SELECT has_table_privilege(current_user, 'audit_records', 'UPDATE, DELETE, TRUNCATE')")
    role = await db.fetchval("SELECT quote_ident(current_user)")
    if not may:
        yield Finding("good", "role", f"works as {role}, which can only add to the audit log")
    elif role == db.APP_ROLE:
        yield Finding("bad", "role", f"works as {role}, which may change the audit log: run `quarterdeck migrate`")
    else:
        yield Finding(
            "note",
            "role",
            f"works as {role}, whom triggers alone keep from changing the audit log; a superuser can run "
            f"{role_statements(role)} then run `quarterdeck migrate`",
        )


async def _key(program: Program) -> AsyncIterator[Finding]:
    settings = program.parts.settings
    source = "QUARTERDECK_SECRET_KEY" if settings.secret_key else str(settings.data / "secret.key")
    yield Finding("good", "key", f"the installation's own, from {source}")


async def _bus(program: Program) -> AsyncIterator[Finding]:
    kind = program.parts.settings.bus_url.get_secret_value().split(":")[0]
    status = program.parts.bus.status()
    if not status.connected:
        yield Finding("bad", "bus", f"{kind}: not connected")
    elif kind == "memory":
        yield Finding("note", "bus", "memory: the embedded database is for one process, `quarterdeck dev`")
    elif program.parts.settings.bus_url == program.parts.settings.database_url:
        yield Finding("good", "bus", "the database: connected; `quarterdeck dev` stays in memory where no bus is set")
    else:
        yield Finding("good", "bus", f"{kind}: connected")


async def _queue(program: Program) -> AsyncIterator[Finding]:
    waiting = await db.fetchval("SELECT count(*) FROM runs WHERE status = 'QUEUED'")
    running = await db.fetchval("SELECT count(*) FROM runs WHERE status = 'RUNNING'")
    yield Finding("good", "queue", f"{running} runs under way, {waiting} waiting")


async def _audit(program: Program) -> AsyncIterator[Finding]:
    for organization_id in await chains():
        report = await verify(organization_id)
        name = "installation" if organization_id == INSTALLATION else encode("org", organization_id)
        if report.intact:
            yield Finding(
                "good", "audit log", f"{name}: {report.verified} records, unchanged, {report.pending} not yet numbered"
            )
        else:
            yield Finding("bad", "audit log", f"{name}: {report.problem}")


async def _sandbox(program: Program) -> AsyncIterator[Finding]:
    report = program.agents.sandbox
    yield Finding("good" if report.works else "note", "sandbox", report.reason)


async def _runtimes(program: Program) -> AsyncIterator[Finding]:
    for name, runtime in program.parts.runtimes.items():
        available, reason = runtime.available()
        default = " (the default)" if name == program.parts.default_runtime else ""
        yield Finding("good" if available else "note", f"runtime {name}"[:14], reason + default)
