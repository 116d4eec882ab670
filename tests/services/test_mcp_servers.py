from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.errors import BadInput, Conflict, Forbidden, NotFound
from core.permissions import Role
from models.base import Row
from models.mcp_servers import McpServerRow, McpTransport
from resolvers import mcp_servers as reads
from resolvers import sessions as session_reads
from services.mcp_registration import check_registration
from services.mcp_servers import (
    McpServerChanges,
    NewMcpServer,
    check_mcp_server,
    register_mcp_server,
    remove_mcp_server,
    update_mcp_server,
)
from services.runs.configuration import runtime_config, spec_of
from services.sessions.lifecycle import NewSession, create_session
from tests.integrations.conftest import _http_mcp_server as http_mcp_server
from tests.services.identity_help import House, a_house, audited

pytestmark = pytest.mark.anyio

PROGRAM = (sys.executable, str(Path(__file__).parents[1] / "fakes" / "mcp_server.py"))
HTTP = McpTransport.STREAMABLE_HTTP


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


@pytest.fixture
def guarded(database: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process as it is where URLs must not lead inside."""
    monkeypatch.setitem(database.parts.settings.__dict__, "allow_private_networks", False)


def stdio(name: str = "test", *options: str, **more: Any) -> NewMcpServer:
    return NewMcpServer(name=name, command=(*PROGRAM, *options), **{"timeout_seconds": 30.0, **more})


async def listed(house: House, filter_: reads.McpServerFilter | None = None) -> list[str]:
    page = await reads.mcp_servers(house.actor(Role.VIEWER), filter_ or reads.McpServerFilter(), first=None, after=None)
    return [row["name"] for row in page.rows]


async def stored(server_id: UUID) -> McpServerRow:
    row = await db.fetchrow("SELECT * FROM mcp_servers WHERE id = $1", server_id, row=McpServerRow)
    assert row is not None
    return row


async def test_a_registered_server_is_checked_and_its_tools_are_listed(house: House) -> None:
    row = await register_mcp_server(house.actor(Role.ADMIN), stdio(description="For tests"))
    assert (row["check_error"], row["protocol_version"]) == (None, None)
    assert row["protocol_version_seen"] in ("2026-07-28", "2025-11-25")
    assert row["checked_at"] is not None
    tools = {tool["name"]: tool for tool in row["tools"]}
    assert tools["echo"]["inputSchema"]["required"] == ["text"]
    assert tools["echo"]["annotations"]["readOnlyHint"] is True
    assert tools["delete_everything"]["annotations"]["destructiveHint"] is True
    assert await listed(house) == ["test"]
    [registered], [checked] = await audited("mcp_server.register"), await audited("mcp_server.check")
    assert (registered["target_id"], registered["after"]["name"]) == (row["id"], "test")
    assert checked["after"]["tools"] == len(tools)


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_the_version_that_was_asked_for_is_spoken(house: House, version: str) -> None:
    row = await register_mcp_server(house.actor(Role.ADMIN), stdio(protocol_version=version))
    assert (row["check_error"], row["protocol_version_seen"]) == (None, version)


async def test_a_server_that_fails_is_registered_all_the_same_and_says_why(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    row = await register_mcp_server(admin, stdio("dies", "--start", "die"))
    assert "no configuration found" in row["check_error"]
    assert row["tools"] is None
    missing = await register_mcp_server(admin, NewMcpServer(name="missing", command=("no-such-program-here",)))
    assert "no-such-program-here" in missing["check_error"]
    hangs = await register_mcp_server(admin, stdio("hangs", "--start", "hang", timeout_seconds=1.0))
    assert "did not start within 1 s" in hangs["check_error"]
    assert await listed(house, reads.McpServerFilter(usable=True)) == []
    assert await listed(house, reads.McpServerFilter(usable=False)) == ["dies", "missing", "hangs"]
    assert [row["outcome"] for row in await audited("mcp_server.check")] == ["FAILED"] * 3


async def test_a_server_mends_and_breaks_again_keeping_its_last_tools(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    row = await register_mcp_server(admin, stdio("t", "--start", "die"))
    mended = await update_mcp_server(admin, row["id"], McpServerChanges(command=PROGRAM))
    assert mended["check_error"] is None
    broken = await update_mcp_server(admin, row["id"], McpServerChanges(command=(*PROGRAM, "--start", "die")))
    assert "no configuration" in broken["check_error"]
    assert broken["tools"] == mended["tools"]
    assert broken["checked_at"] > mended["checked_at"] > row["checked_at"]


async def test_a_server_over_http_gets_its_headers(house: House) -> None:
    async with http_mcp_server() as (url, _):
        new = NewMcpServer(name="far", transport=HTTP, url=url, headers=[("Authorization", "Bearer hidden-token")])
        row = await register_mcp_server(house.actor(Role.ADMIN), new)
    assert row["check_error"] is None
    assert spec_of(row).headers == {"Authorization": "Bearer hidden-token"}
    assert (row["header_names"], row["environment_names"], row["environment_sealed"]) == (["Authorization"], [], None)
    away = await check_mcp_server(house.actor(Role.ADMIN), row["id"])
    assert "cannot be reached" in away["check_error"]


@pytest.mark.usefixtures("guarded")
async def test_urls_into_our_own_network_are_refused(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    for url in ("http://127.0.0.1:9/mcp", "http://169.254.169.254/latest", "http://[::1]/", "http://localhost/mcp"):
        with pytest.raises(BadInput, match="private network") as refused:
            await register_mcp_server(admin, NewMcpServer(name="far", transport=HTTP, url=url))
        assert refused.value.field == "url"
    row = await register_mcp_server(
        admin, NewMcpServer(name="far", transport=HTTP, url="https://mcp.invalid/", check=False)
    )
    with pytest.raises(BadInput, match="private network"):
        await update_mcp_server(admin, row["id"], McpServerChanges(url="http://10.0.0.1/"))
    # What was allowed when it was registered is looked at again when it is used.
    await db.execute("UPDATE mcp_servers SET url = 'http://127.0.0.1:9/mcp' WHERE id = $1", row["id"])
    assert "private network" in (await check_mcp_server(admin, row["id"]))["check_error"]


async def test_secrets_are_sealed_opened_for_runs_and_never_told(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    secret = "hidden-secret-value"
    row = await register_mcp_server(admin, stdio(environment=[("API_TOKEN", secret), ("MODE", "fast")]))
    assert row["environment_names"] == ["API_TOKEN", "MODE"]
    assert secret.encode() not in row["environment_sealed"]
    session = await create_session(admin, NewSession(mcp_server_ids=[row["id"]]))
    [spec] = (await runtime_config(session)).mcp_servers
    assert spec.env == {"API_TOKEN": secret, "MODE": "fast"}
    # A server's last words may repeat what it was given.
    tells = ("sh", "-c", 'echo "bad token $API_TOKEN" >&2; exit 3')
    told = await update_mcp_server(admin, row["id"], McpServerChanges(command=tells))
    assert "bad token [redacted]" in told["check_error"]
    everything = await db.fetch("SELECT to_jsonb(audit_records) AS it FROM audit_records", row=Row)
    assert secret not in str([item["it"] for item in everything])
    assert secret not in repr(stdio(environment=[("API_TOKEN", secret)]))


async def test_changes_replace_what_is_given_and_leave_the_rest(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    new = stdio(environment=[("A", "1"), ("B", "2")], protocol_version="2025-11-25", check=False)
    row = await register_mcp_server(admin, new)
    server_id = row["id"]
    assert (row["checked_at"], row["tools"]) == (None, None)

    async def change(**changes: Any) -> McpServerRow:
        return await update_mcp_server(admin, server_id, McpServerChanges(check=False, **changes))

    changed = await change(description="New", timeout_seconds=5.0, stateless=True)
    assert (changed["description"], changed["timeout_seconds"], changed["stateless"]) == ("New", 5.0, True)
    assert (changed["command"], spec_of(changed).env) == (row["command"], {"A": "1", "B": "2"})
    assert changed["protocol_version"] == "2025-11-25"
    assert (await change(protocol_version=None))["protocol_version"] is None
    assert spec_of(await change(environment=[("C", "3")])).env == {"C": "3"}
    assert (await change(environment=[]))["environment_names"] == []
    last = (await audited("mcp_server.update"))[-1]
    assert last["before"]["environment_names"] == ["C"]
    assert last["after"]["changed"] == ["environment_names", "environment_sealed"]
    with pytest.raises(BadInput) as refused:
        await change(url="https://example.com/mcp", timeout_seconds=0.0)
    assert [item["field"] for item in refused.value.details["fields"]] == ["url", "timeoutSeconds"]
    assert (await stored(server_id))["timeout_seconds"] == 5.0


async def test_names_are_taken_until_the_server_is_removed(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    row = await register_mcp_server(admin, stdio(environment=[("A", "1")], check=False))
    with pytest.raises(Conflict, match="another name") as refused:
        await register_mcp_server(admin, stdio(check=False))
    assert refused.value.field == "name"
    other = await a_house("Other")
    await register_mcp_server(other.actor(Role.ADMIN), stdio(check=False))
    session = await create_session(admin, NewSession(mcp_server_ids=[row["id"]]))

    removed = await remove_mcp_server(admin, row["id"])
    assert removed["removed_at"] is not None
    assert (removed["environment_sealed"], removed["environment_names"]) == (None, ["A"])
    assert await listed(house) == []
    assert (await reads.mcp_server(admin, row["id"])) is not None
    [[still]] = await session_reads.servers_of_sessions(admin, [session], {})
    assert still["id"] == row["id"]
    assert (await runtime_config(session)).mcp_servers == []
    for refuse in (
        remove_mcp_server(admin, row["id"]),
        check_mcp_server(admin, row["id"]),
        update_mcp_server(admin, row["id"], McpServerChanges(description="x")),
        create_session(admin, NewSession(mcp_server_ids=[row["id"]])),
    ):
        with pytest.raises(NotFound):
            await refuse
    assert (await register_mcp_server(admin, stdio(check=False)))["id"] != row["id"]


async def test_the_same_key_registers_once(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    rows = await asyncio.gather(*(register_mcp_server(admin, stdio(check=False), key="k1") for _ in range(4)))
    assert len({row["id"] for row in rows}) == 1
    assert len(await audited("mcp_server.register")) == 1
    with pytest.raises(Conflict, match="another input"):
        await register_mcp_server(admin, stdio("other", check=False), key="k1")


async def test_another_organisation_neither_sees_nor_changes_it(house: House) -> None:
    row = await register_mcp_server(house.actor(Role.ADMIN), stdio(check=False))
    stranger = (await a_house("Other")).actor(Role.OWNER)
    assert await reads.mcp_server(stranger, row["id"]) is None
    for refuse in (
        remove_mcp_server(stranger, row["id"]),
        check_mcp_server(stranger, row["id"]),
        update_mcp_server(stranger, row["id"], McpServerChanges(description="x")),
    ):
        with pytest.raises(NotFound):
            await refuse


async def test_members_cannot_make_the_service_run_commands(house: House) -> None:
    row = await register_mcp_server(house.actor(Role.ADMIN), stdio(check=False))
    member = house.actor(Role.MEMBER)
    for refuse in (
        register_mcp_server(member, stdio("mine")),
        update_mcp_server(member, row["id"], McpServerChanges(command=("sh",))),
        remove_mcp_server(member, row["id"]),
        check_mcp_server(member, row["id"]),
    ):
        with pytest.raises(Forbidden):
            await refuse
    assert [record["outcome"] for record in await audited("mcp_server.check")] == ["REFUSED"]
    assert await listed(house) == ["test"]


async def test_a_check_under_way_holds_nobody_up_and_undoes_nothing(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    row = await register_mcp_server(admin, stdio("t", "--start", "hang", timeout_seconds=4.0, check=False))
    slow = asyncio.create_task(check_mcp_server(admin, row["id"]))
    await asyncio.sleep(0.5)
    assert not await db.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    )
    changes = McpServerChanges(command=PROGRAM, timeout_seconds=30.0)
    assert (await update_mcp_server(admin, row["id"], changes))["check_error"] is None
    assert (await slow)["check_error"] is None


async def test_what_a_server_lists_is_made_fit_to_store(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = house.actor(Role.ADMIN)
    script = (
        "from mcp.server import MCPServer\n"
        "s = MCPServer('odd')\n"
        "@s.tool(description='a\\0b')\n"
        "def odd(x: str) -> str: return x\n"
        "s.run()\n"
    )
    row = await register_mcp_server(admin, NewMcpServer(name="odd", command=(sys.executable, "-c", script)))
    assert row["check_error"] is None
    assert row["tools"][0]["description"] == "a\ufffdb"
    monkeypatch.setattr("services.mcp_servers.LARGEST_LISTING", 100)
    cut = await check_mcp_server(admin, row["id"])
    assert "100 bytes" in cut["check_error"]
    assert cut["tools"] == row["tools"]


@pytest.mark.parametrize(
    ("new", "fields"),
    [
        (NewMcpServer(name="Bad Name", command=("x",)), ["name"]),
        (NewMcpServer(name="-bad", command=("x",)), ["name"]),
        (NewMcpServer(name="a" * 41, command=("x",)), ["name"]),
        (NewMcpServer(name="git.x", command=("x",)), ["name"]),
        (NewMcpServer(name="ok\n", command=("x",)), ["name"]),
        (NewMcpServer(name="ok"), ["command"]),
        (NewMcpServer(name="ok", command=("",)), ["command.0"]),
        (NewMcpServer(name="ok", command=("a", "b\0")), ["command.1"]),
        (NewMcpServer(name="ok", command=("a",) * 101), ["command"]),
        (NewMcpServer(name="ok", command=("a",), url="https://example.com"), ["url"]),
        (NewMcpServer(name="ok", command=("a",), headers=[("X", "y")]), ["headers"]),
        (NewMcpServer(name="ok", command=("a",), description="x" * 2001), ["description"]),
        (NewMcpServer(name="ok", command=("a",), description="\ud800"), ["description"]),
        (NewMcpServer(name="ok", command=("a",), timeout_seconds=601), ["timeoutSeconds"]),
        (NewMcpServer(name="ok", command=("a",), timeout_seconds=float("nan")), ["timeoutSeconds"]),
        (NewMcpServer(name="ok", command=("a",), protocol_version="2024-11-05"), ["protocolVersion"]),
        (NewMcpServer(name="ok", command=("a",), environment=[("PATH", "/x")]), ["environment.0.name"]),
        (NewMcpServer(name="ok", command=("a",), environment=[("A", "\0")]), ["environment.0.value"]),
        (NewMcpServer(name="ok", command=("a",), environment=[("A", "1"), ("A", "2")]), ["environment.1.name"]),
        (NewMcpServer(name="ok", transport=HTTP), ["url"]),
        (NewMcpServer(name="ok", transport=HTTP, url="ftp://example.com"), ["url"]),
        (NewMcpServer(name="ok", transport=HTTP, url="https://user:secret@example.com"), ["url"]),
        (NewMcpServer(name="ok", transport=HTTP, url="https://example.com/\r\nX: y"), ["url"]),
        (NewMcpServer(name="ok", transport=HTTP, url="https://example.com", command=("a",)), ["command"]),
        (NewMcpServer(name="ok", transport=HTTP, url="https://x.example", environment=[("A", "1")]), ["environment"]),
        (NewMcpServer(name="ok", transport=HTTP, url="https://x.example", headers=[("Host", "y")]), ["headers.0.name"]),
        (NewMcpServer(name="ok", transport=HTTP, url="https://x.example", headers=[("A B", "y")]), ["headers.0.name"]),
        (
            NewMcpServer(name="ok", transport=HTTP, url="https://x.example", headers=[("A", "b\r\n")]),
            ["headers.0.value"],
        ),
        (
            NewMcpServer(name="ok", transport=HTTP, url="https://x.example", headers=[("A", "1"), ("a", "2")]),
            ["headers.1.name"],
        ),
        (NewMcpServer(name="Bad", timeout_seconds=0), ["name", "command", "timeoutSeconds"]),
    ],
)
def test_every_problem_of_a_registration_is_located(new: NewMcpServer, fields: list[str]) -> None:
    with pytest.raises(BadInput) as refused:
        check_registration(new)
    assert [item["field"] for item in refused.value.details["fields"]] == fields


def test_a_sound_registration_passes() -> None:
    check_registration(NewMcpServer(name="a-1", command=("x", ""), environment=[("A_1", "")]))
    check_registration(
        NewMcpServer(name="a", transport=HTTP, url="http://x.example:8080/a?b=c", headers=[("X-Key", "ab\tc d")])
    )
