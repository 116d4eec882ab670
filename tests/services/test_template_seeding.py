"""Fetching and unpacking what sessions begin with, which may be hostile."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from core.errors import BadInput, QuarterdeckError
from core.settings import Settings
from integrations.sandbox.plain import PlainSandbox
from integrations.seeds import archives
from integrations.seeds.archives import unpack
from integrations.seeds.fetcher import Fetcher
from services.templates.seeding import _merge, _move, write_files
from services.templates.spec import Seed
from tests.fakes.origins import origin

MOST = 1024 * 1024


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, type_: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.mode = type_, target, mode
    return found


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tars_are_unpacked_with_links_that_stay_inside(tmp_path: Path, into: Path, mode: str) -> None:
    path = tar(
        tmp_path / "a",
        (member("folder", tarfile.DIRTYPE), b""),
        (member("folder/run", mode=0o4755), b"#!/bin/sh\n"),
        (member("link", tarfile.SYMTYPE, "folder/run"), b""),
        mode=mode,
    )
    assert unpack(path, into, MOST).files == 1
    assert (into / "link").read_bytes() == b"#!/bin/sh\n"
    assert os.stat(into / "folder/run").st_mode & 0o7777 in (0o755, 0o700)


def test_zips_are_unpacked(tmp_path: Path, into: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/file.txt", "text")
    assert unpack(tmp_path / "a", into, MOST).bytes == 4
    assert (into / "folder/file.txt").read_text() == "text"


@pytest.mark.parametrize(
    "members",
    [
        [member("../out")],
        [member("/out")],
        [member("a/../../out")],
        [member("a\\..\\out")],
        [member("link", tarfile.SYMTYPE, "/etc/passwd")],
        [member("link", tarfile.SYMTYPE, "../../out")],
        [member("link", tarfile.SYMTYPE, "..")],
        # Each stays inside by its own text, and leads out through the other.
        [member("p/q/r", tarfile.SYMTYPE, "../.."), member("z", tarfile.SYMTYPE, "p/q/r/../..")],
        [member("link", tarfile.SYMTYPE, "."), member("link/../../out")],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("device", tarfile.CHRTYPE)],
        [member("twice"), member("twice")],
        [member("a"), member("a/b")],
    ],
)
def test_archives_that_lead_out_or_hold_what_they_must_not_are_refused(
    tmp_path: Path, into: Path, members: list[tarfile.TarInfo]
) -> None:
    path = tar(tmp_path / "a", *((each, b"") for each in members))
    with pytest.raises(BadInput):
        unpack(path, into, MOST)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "into"]


def test_nothing_is_written_through_a_link_of_the_archive(tmp_path: Path, into: Path) -> None:
    (tmp_path / "outside").mkdir()
    path = tar(tmp_path / "a", (member("d", tarfile.SYMTYPE, "../outside"), b""), (member("d/file"), b"x"))
    with pytest.raises(BadInput):
        unpack(path, into, MOST)
    assert not list((tmp_path / "outside").iterdir())


def test_bombs_are_refused_by_what_comes_out_of_them(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * (4 * MOST))
    assert (tmp_path / "bomb").stat().st_size < MOST // 100
    with pytest.raises(BadInput, match="too large"):
        unpack(tmp_path / "bomb", into, MOST)
    monkeypatch.setattr(archives, "MOST_ENTRIES", 3)
    many = tar(tmp_path / "many", *((member(f"f{n}"), b"") for n in range(5)))
    with pytest.raises(BadInput, match="more than 3 entries"):
        unpack(many, into, MOST)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 broken", b"\x1f\x8b broken"])
def test_what_is_no_archive_is_refused(tmp_path: Path, into: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(BadInput):
        unpack(tmp_path / "a", into, MOST)


def test_what_is_fetched_replaces_what_is_there_and_follows_no_link(tmp_path: Path) -> None:
    source, directory, outside = tmp_path / "source", tmp_path / "directory", tmp_path / "outside"
    for folder in (source / "a/b", directory / "a/b", outside):
        folder.mkdir(parents=True)
    (source / "a/b/new").write_text("new")
    (source / "file").write_text("new")
    (directory / "a/b/old").write_text("old")
    (directory / "file").symlink_to(outside / "target")
    (directory / "out").symlink_to(outside)
    _merge(source, directory)
    assert sorted(path.name for path in (directory / "a/b").iterdir()) == ["new", "old"]
    assert (directory / "file").read_text() == "new"
    assert not list(outside.iterdir())
    with pytest.raises(BadInput):
        _move(source, directory, "out/deeper")
    seed = Seed.model_validate({"files": [{"path": "out/file", "content": "x"}]})
    with pytest.raises(BadInput):
        write_files(directory, seed)
    assert not list(outside.iterdir())


@pytest.mark.anyio
async def test_nothing_is_fetched_from_inside_our_own_network(tmp_path: Path, into: Path) -> None:
    fetcher = Fetcher(Settings(home=tmp_path, allow_private_networks=False), PlainSandbox())
    with origin(tmp_path / "into") as found:
        for url in (
            found.repository,
            "https://127.0.0.1/x.git",
            "https://169.254.169.254/latest",
            "file:///etc/passwd",
        ):
            with pytest.raises(QuarterdeckError):
                await fetcher.repository(url, "main", into)
            with pytest.raises(QuarterdeckError):
                await fetcher.archive(url, "0" * 64, into)
    assert not [path for path in into.iterdir() if path.name != ".git"]
