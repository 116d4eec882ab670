from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.wiring import Program
from core.errors import BadInput, LimitExceeded, NotFound, QuarterdeckError, TooLarge
from core.permissions import Actor, Role
from models.sessions import SessionRow, Visibility
from services import workspace
from services.sessions.lifecycle import NewSession, create_session, session_directory
from services.workspace import Entry, EntryKind, FilePart
from tests.services.identity_help import HERE, House, a_house, audited

pytestmark = pytest.mark.anyio

SECRET = "not for sessions"


@dataclass
class Files:
    """A member's session, with its directory, and a secret outside of it."""

    house: House
    actor: Actor
    session: SessionRow
    root: Path
    outside: Path

    async def list(self, path: str = ".", **page: Any) -> list[Entry]:
        found = await workspace.entries(self.actor, self.session["id"], path, **{"first": None, "after": None, **page})
        return list(found.rows)

    async def read(self, path: str, **part: Any) -> FilePart:
        return await workspace.read_file(self.actor, self.session["id"], path, **part)

    async def refusals(self, path: str) -> list[QuarterdeckError]:
        """What listing and reading of a path that leads nowhere good are refused with."""
        found = []
        for ask in (self.list(path), self.read(path)):
            with pytest.raises(QuarterdeckError) as refused:
                await ask
            assert SECRET not in refused.value.message
            found.append(refused.value)
        return found


@pytest.fixture
async def files(database: Program) -> Files:
    house = await a_house()
    actor = house.actor(Role.MEMBER)
    session = await create_session(actor, NewSession())
    root = session_directory(session["organization_id"], session["id"])
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    return Files(house, actor, session, root, outside)


async def test_a_directory_is_listed_by_name_in_pages(files: Files) -> None:
    (files.root / "b").mkdir()
    (files.root / "b" / "inner.txt").write_text("12345")
    (files.root / "a.txt").write_text("abc")
    (files.root / "é").symlink_to("a.txt")
    os.mkfifo(files.root / "pipe")
    found = await files.list()
    assert [(entry.name, entry.path, entry.kind, entry.size) for entry in found] == [
        ("a.txt", "a.txt", EntryKind.FILE, 3),
        ("b", "b", EntryKind.DIRECTORY, None),
        ("pipe", "pipe", EntryKind.OTHER, None),
        ("é", "é", EntryKind.SYMLINK, None),
    ]
    assert [(entry.path, entry.size) for entry in await files.list("./b/")] == [("b/inner.txt", 5)]
    seen: list[str] = []
    after = None
    while True:
        page = await workspace.entries(files.actor, files.session["id"], "", first=3, after=after)
        assert await page.count() == 4
        seen += [entry.name for entry in page.rows]
        if not page.has_next_page:
            break
        after = page.cursor_of(page.rows[-1])
    assert seen == ["a.txt", "b", "pipe", "é"]
    for cursor in ("nonsense", "WzFd", "WyJ4Il0"):
        with pytest.raises(BadInput, match="cursor"):
            await files.list(after=cursor)


async def test_odd_names_and_times_do_not_break_the_list(files: Files) -> None:
    Path(os.fsdecode(os.fsencode(files.root) + b"/bad-\xff")).write_text("x")
    (files.root / "line\nbreak").write_text("y")
    os.utime(files.root / "line\nbreak", (2**40, 2**40))
    found = await files.list()
    assert [entry.name for entry in found] == ["bad-\ufffd", "line\nbreak"]
    assert found[1].modified_at.year > 2400
    assert (workspace._moment(2.0**60).year, workspace._moment(-(2.0**60)).year) == (9999, 1)
    page = await workspace.entries(files.actor, files.session["id"], ".", first=1, after=None)
    assert [entry.name for entry in await files.list(after=page.cursor_of(page.rows[0]))] == ["line\nbreak"]
    assert (await files.read("line\nbreak")).text == "y"


async def test_too_many_entries_are_said_to_be_too_many(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "MOST_ENTRIES", 2)
    for name in "ab":
        (files.root / name).touch()
    assert len(await files.list()) == 2
    (files.root / "c").touch()
    with pytest.raises(LimitExceeded, match="more than 2"):
        await files.list()


async def test_text_is_read_in_parts_that_end_between_characters(files: Files) -> None:
    text = "aé€😀" * 5
    (files.root / "notes.txt").write_text(text)
    whole = await files.read("notes.txt")
    assert (whole.text, whole.size, whole.next_offset) == (text, 50, None)
    read, offset = "", 0
    while True:
        part = await files.read("notes.txt", offset=offset, limit=7)
        assert part.text is not None
        read += part.text
        if part.next_offset is None:
            break
        offset = part.next_offset
    assert read == text
    beyond = await files.read("notes.txt", offset=2**62)
    assert (beyond.content, beyond.next_offset) == (b"", None)
    # A part too small for one character still gets on.
    assert (await files.read("notes.txt", offset=1, limit=1)).next_offset == 2
    for wrong in ({"offset": -1}, {"limit": 0}, {"limit": workspace.LARGEST_PART + 1}):
        with pytest.raises(BadInput):
            await files.read("notes.txt", **wrong)


async def test_what_is_not_text_has_no_text(files: Files) -> None:
    (files.root / "image").write_bytes(b"\x89PNG\r\n\xff\x00")
    (files.root / "nul").write_bytes(b"a\0b")
    (files.root / "empty").touch()
    assert ((await files.read("image")).text, (await files.read("image")).content) == (None, b"\x89PNG\r\n\xff\x00")
    assert (await files.read("nul")).text is None
    assert ((await files.read("empty")).text, (await files.read("empty")).next_offset) == ("", None)


async def test_a_file_over_the_limit_is_listed_and_not_read(files: Files, database: Program) -> None:
    limit = database.parts.settings.max_file_bytes
    with (files.root / "large").open("wb") as file:
        file.truncate(limit + 1)
    assert (await files.list())[0].size == limit + 1
    with pytest.raises(TooLarge, match=str(limit)):
        await files.read("large", limit=10)
    token = workspace.download_url(files.actor, files.session["id"], "large").rpartition("/")[2]
    with pytest.raises(TooLarge):
        await workspace.open_download(token, HERE)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "..",
        "../outside/secret",
        "a/../../outside/secret",
        "a/..",
        "a\0b",
        "half \ud83d",
        "x" * 4097,
    ],
)
async def test_paths_that_cannot_be_meant_are_refused(files: Files, path: str) -> None:
    for error in await files.refusals(path):
        assert isinstance(error, BadInput)
        assert error.field == "path"


async def test_links_that_lead_out_lead_nowhere(files: Files) -> None:
    root, outside = files.root, files.outside
    (root / "absolute").symlink_to(outside / "secret")
    (root / "relative").symlink_to("../outside/secret")
    (root / "folder").symlink_to(outside)
    (root / "up").symlink_to("..")
    (root / "hops").symlink_to("up/outside")
    (root / "real").mkdir()
    (root / "real" / "deep").symlink_to("../../outside")
    (root / "etc").symlink_to("/etc")
    for path in (
        *("absolute", "relative", "folder", "folder/secret", "up", "up/outside/secret", "hops/secret"),
        *("real/deep", "real/deep/secret", "etc/passwd"),
    ):
        for error in await files.refusals(path):
            assert isinstance(error, BadInput), path
            assert "leads out" in error.message
    assert {entry.kind for entry in await files.list()} == {EntryKind.SYMLINK, EntryKind.DIRECTORY}


async def test_links_within_are_followed(files: Files) -> None:
    root = files.root
    (root / "real").mkdir()
    (root / "real" / "file").write_text("inside")
    (root / "link").symlink_to("real")
    (root / "absolute").symlink_to(root / "real" / "file")
    (root / "real" / "back").symlink_to("../absolute")
    for path in ("link/file", "absolute", "real/back"):
        assert (await files.read(path)).text == "inside"
    assert [entry.path for entry in await files.list("link")] == ["link/back", "link/file"]
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nothing")
    assert {type(error) for error in await files.refusals("loop")} == {BadInput}
    assert {type(error) for error in await files.refusals("dangling")} == {NotFound}


async def test_only_files_are_read_and_nothing_waits_for_a_pipe(files: Files) -> None:
    os.mkfifo(files.root / "pipe")
    (files.root / "folder").mkdir()
    (files.root / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(files.root)  # the path of a socket has at most 107 bytes
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        for path in ("pipe", "folder", "socket", "."):
            with pytest.raises(BadInput, match="not a file"):
                await files.read(path)
            token = workspace.download_url(files.actor, files.session["id"], path).rpartition("/")[2]
            with pytest.raises(BadInput, match="not a file"):
                await workspace.open_download(token, HERE)
    for path in ("file", "file/below", "pipe"):
        with pytest.raises(BadInput, match="not a directory"):
            await files.list(path)
    assert [type(error) for error in await files.refusals("nothing/there")] == [NotFound, NotFound]
    assert [type(error) for error in await files.refusals("n" * 300)] == [BadInput, BadInput]


async def test_nobody_wins_the_race_between_looking_and_opening(files: Files) -> None:
    """A tool that swaps a folder, and a file, for links while they are read gets nothing from outside."""
    (files.root / "folder").mkdir()
    (files.root / "folder" / "secret").write_text("harmless")
    (files.root / "link").symlink_to(files.outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for one, other in (("folder", "kept"), ("link", "folder"), ("folder", "link"), ("kept", "folder")):
                os.rename(files.root / one, files.root / other)
                stop.wait(0.0005)

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes = set()
    try:
        for _ in range(300):
            try:
                outcomes.add(workspace._read(files.root, "folder/secret", files.session["id"], 0, 100).text)
            except (BadInput, OSError):
                outcomes.add("refused")
    finally:
        stop.set()
        swapper.join()
    assert outcomes <= {"harmless", "refused"}
    assert "harmless" in outcomes


async def test_sessions_that_cannot_be_seen_have_no_files(files: Files) -> None:
    (files.root / "file").write_text("x")
    other = await a_house("Other")
    for actor in (files.house.actor(Role.VIEWER), other.actor(Role.OWNER)):
        with pytest.raises(NotFound):
            await workspace.entries(actor, files.session["id"], ".", first=None, after=None)
        with pytest.raises(NotFound):
            await workspace.read_file(actor, files.session["id"], "file")
    open_one = await create_session(files.actor, NewSession(visibility=Visibility.ORGANIZATION))
    (session_directory(open_one["organization_id"], open_one["id"]) / "shared").write_text("for all")
    viewer = files.house.actor(Role.VIEWER)
    assert (await workspace.read_file(viewer, open_one["id"], "shared")).text == "for all"
    assert (await workspace.read_file(files.house.actor(Role.ADMIN), files.session["id"], "file")).text == "x"


async def test_reads_are_audited_and_so_are_refused_ones(files: Files) -> None:
    (files.root / "file").write_text("hello")
    (files.root / "out").symlink_to(files.outside / "secret")
    await files.read("./file", offset=1)
    await files.list()
    for path in ("out", "missing"):
        with pytest.raises(QuarterdeckError):
            await files.read(path)
    records = await audited("workspace.read")
    assert [(record["outcome"], record["details"]["path"], record["error_code"]) for record in records] == [
        ("SUCCEEDED", "file", None),
        ("REFUSED", "out", "BAD_INPUT"),
        ("REFUSED", "missing", "NOT_FOUND"),
    ]
    assert records[0]["details"] == {"path": "file", "offset": 1, "bytes": 4}
    assert {record["session_id"] for record in records} == {files.session["id"]}
    assert {record["actor_id"] for record in records} == {files.actor.user_id}


async def test_a_directory_that_is_gone_is_said_to_be(files: Files) -> None:
    files.root.rmdir()
    with pytest.raises(NotFound, match="not on this machine") as refused:
        await files.list()
    assert refused.value.field == "sessionId"
