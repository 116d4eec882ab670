from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect

from app.http import files
from app.wiring import Program
from core import db
from core.permissions import Actor, Role
from models.sessions import SessionRow
from services.identity.accounts import update_user
from services.parts import parts
from services.sessions.lifecycle import NewSession, create_session, session_directory
from services.workspace import download_url
from tests.services.identity_help import House, a_house, audited

pytestmark = pytest.mark.anyio

HEADERS = {"user-agent": "tests", "x-request-id": "req-9"}


@dataclass
class Door:
    """The route of downloads, and a member's session with a directory."""

    http: httpx.AsyncClient
    house: House
    actor: Actor
    session: SessionRow
    root: Path

    async def get(self, path: str) -> httpx.Response:
        return await self.http.get(self.link(path), headers=HEADERS)

    def link(self, path: str) -> str:
        return download_url(self.actor, self.session["id"], path)


@pytest.fixture
async def door(database: Program) -> AsyncIterator[Door]:
    house = await a_house()
    actor = house.actor(Role.MEMBER)
    session = await create_session(actor, NewSession())
    transport = httpx.ASGITransport(Starlette(routes=files.routes))
    async with httpx.AsyncClient(transport=transport) as http:
        yield Door(http, house, actor, session, session_directory(session["organization_id"], session["id"]))


async def test_a_link_downloads_the_file_and_no_browser_opens_it(door: Door) -> None:
    content = b"<script>alert(1)</script>" + bytes(range(256)) * 4000
    (door.root / "sub").mkdir()
    (door.root / "sub" / "page.html").write_bytes(content)
    response = await door.get("sub/page.html")
    assert (response.status_code, response.content) == (200, content)
    assert response.headers["content-length"] == str(len(content))
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''page.html"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]
    assert "no-store" in response.headers["cache-control"]
    [record] = await audited("workspace.download")
    assert record["details"] == {"path": "sub/page.html", "bytes": len(content)}
    assert (record["actor_id"], record["session_id"]) == (door.actor.user_id, door.session["id"])
    assert (record["user_agent"], record["request_id"]) == ("tests", "req-9")


async def test_names_are_told_without_breaking_the_header(door: Door) -> None:
    for name, told in (
        ("a b.txt", "a%20b.txt"),
        ("“é”.txt", "%E2%80%9C%C3%A9%E2%80%9D.txt"),
        ('a"\r\nX-Injected: y', "a%22%0D%0AX-Injected%3A%20y"),
    ):
        (door.root / name).write_text("x")
        response = await door.get(name)
        assert response.headers["content-disposition"] == f"attachment; filename*=UTF-8''{told}"
        assert "x-injected" not in response.headers
    (door.root / "empty").touch()
    assert (await door.get("empty")).headers["content-length"] == "0"


async def test_links_that_are_not_ours_or_no_longer_good(door: Door) -> None:
    (door.root / "file").write_text("x")
    good = door.link("file").rpartition("/")[2]
    claims = {"session": str(door.session["id"]), "path": "file", "user": str(door.actor.user_id)}
    vault = parts().vault
    for token in (
        "nonsense",
        good[:-3] + ("AAA" if good[-3:] != "AAA" else "BBB"),
        vault.sign(claims, seconds=-1, purpose="file"),
        vault.sign(claims, seconds=60, purpose="something else"),
        vault.sign(claims | {"user": str(uuid4())}, seconds=60, purpose="file"),
        vault.sign(claims | {"session": str(uuid4())}, seconds=60, purpose="file"),
    ):
        response = await door.http.get(f"http://test/files/{token}")
        assert response.status_code == 404, token
        assert response.headers["x-content-type-options"] == "nosniff"
    assert (await door.http.get(f"http://test/files/{good}")).content == b"x"


async def test_a_link_gives_no_more_than_its_maker_may_read_now(door: Door) -> None:
    (door.root / "file").write_text("x")
    link = door.link("file")
    admin = door.house.actor(Role.ADMIN)
    assert (await door.http.get(link)).status_code == 200
    await db.execute("UPDATE sessions SET owner_id = $1", admin.user_id)
    assert (await door.http.get(link)).status_code == 404
    await db.execute("UPDATE sessions SET owner_id = $1", door.actor.user_id)
    assert door.actor.user_id is not None
    await update_user(admin, door.actor.user_id, active=False)
    assert (await door.http.get(link)).status_code == 404
    assert [record["outcome"] for record in await audited("workspace.download")] == ["SUCCEEDED", "REFUSED"]


async def test_the_file_is_looked_at_again_when_it_is_downloaded(door: Door) -> None:
    path = door.root / "file"
    path.write_text("inside")
    link = door.link("file")
    path.unlink()
    assert (await door.http.get(link)).status_code == 404
    secret = door.root.parent / "secret"
    secret.write_text("not for sessions")
    path.symlink_to(secret)
    response = await door.http.get(link)
    assert (response.status_code, "not for" in response.text) == (400, False)
    path.unlink()
    os.mkfifo(path)
    assert (await door.http.get(link)).status_code == 400
    path.unlink()
    with path.open("wb") as file:
        file.truncate(parts().settings.max_file_bytes + 1)
    assert (await door.http.get(link)).status_code == 413


async def test_never_more_is_sent_than_was_promised(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the file grows nor where it shrinks; and it is closed either way."""
    opened: list[Any] = []
    original = files.open_download

    async def remembered(*given: Any) -> Any:
        opened.append(await original(*given))
        return opened[-1]

    monkeypatch.setattr(files, "open_download", remembered)
    path = door.root / "log"
    for size_after, sent in ((3_000_000, 1_000_000), (400_000, 400_000)):
        path.write_bytes(b"x" * 1_000_000)
        messages = await _asgi(door.link("log"), lambda size=size_after: os.truncate(path, size))
        assert dict(messages[0]["headers"])[b"content-length"] == b"1000000"
        assert sum(len(message.get("body", b"")) for message in messages) == sent
        assert opened[-1].file.closed
    with pytest.raises(ClientDisconnect):
        await _asgi(door.link("log"), _hang_up)
    assert opened[-1].file.closed


def _hang_up() -> None:
    raise ConnectionError


async def _asgi(link: str, on_start: Any) -> list[Any]:
    """The messages of one request; `on_start` is called when the headers are sent."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.start":
            on_start()

    path = httpx.URL(link).path
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 1),
        "server": ("test", 80),
    }
    await Starlette(routes=files.routes)(scope, receive, send)
    return sent
