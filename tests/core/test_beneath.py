"""Files below a hostile folder: nothing outside is read, written or listed, however it is asked for."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from core import beneath
from core.errors import BadInput


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("inside")
    (folder / "sub" / "deep").write_text("deep")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root-twin").mkdir()
    (tmp_path / "root-twin" / "file").write_text("twin")
    return folder


def read(root: Path, path: str) -> str:
    return beneath.read_bytes(root, path, max_bytes=1000).decode()


@pytest.mark.parametrize("path", ["file", "./file", "sub/../file", "sub//..//file"])
def test_ways_to_a_file(root: Path, path: str) -> None:
    assert read(root, path) == "inside"
    assert read(root, str(root / "file")) == "inside"


@pytest.mark.parametrize(
    "path", ["../secret", "sub/../../secret", "/etc/passwd", "..", "../root-twin/file", "sub/../../root/file", "a\0b"]
)
def test_ways_out(root: Path, path: str) -> None:
    with pytest.raises(BadInput):
        read(root, path)
    with pytest.raises(BadInput):
        beneath.write_bytes(root, path, b"x")
    assert (root.parent / "secret").read_text() == "secret"


def test_links_are_followed_inside_only(root: Path) -> None:
    (root / "to-file").symlink_to("sub/../file")
    (root / "to-absolute").symlink_to(root / "sub" / "deep")
    (root / "to-folder").symlink_to("sub")
    (root / "out").symlink_to("../secret")
    (root / "out-absolute").symlink_to(root.parent / "secret")
    (root / "out-folder").symlink_to("..")
    (root / "loop").symlink_to("loop")
    assert read(root, "to-file") == "inside"
    assert read(root, "to-absolute") == "deep"
    assert read(root, "to-folder/deep") == "deep"
    for path in ("out", "out-absolute", "out-folder/secret", "to-folder/../out"):
        with pytest.raises(BadInput):
            read(root, path)
        with pytest.raises(BadInput):
            beneath.write_bytes(root, path, b"x")
    with pytest.raises(OSError, match="symbolic links"):
        read(root, "loop")


def test_writing_replaces_whole_files_and_keeps_modes(root: Path) -> None:
    (root / "file").chmod(0o755)
    beneath.write_bytes(root, "file", b"new")
    beneath.write_bytes(root, "made/of/folders", b"deep")
    assert (root / "file").read_bytes() == b"new"
    assert (root / "file").stat().st_mode & 0o777 == 0o755
    assert (root / "made" / "of" / "folders").read_bytes() == b"deep"
    assert sorted(path.name for path in root.iterdir()) == ["file", "made", "sub"]


def test_only_regular_files_of_bearable_size(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for path in ("sub", "pipe", "."):
        with pytest.raises(BadInput):
            read(root, path)
        with pytest.raises(BadInput):
            beneath.write_bytes(root, path, b"x")
    (root / "large").write_bytes(b"x" * 1001)
    with pytest.raises(BadInput, match="1001 bytes"):
        read(root, "large")
    with pytest.raises(FileNotFoundError):
        read(root, "missing/file")


def test_a_race_of_links_never_leads_out(root: Path) -> None:
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in ("../secret", "file"):
                (root / "new").symlink_to(target)
                (root / "new").replace(root / "racing")

    (root / "racing").symlink_to("file")
    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(read(root, "racing"))
            except (BadInput, OSError):
                continue
    finally:
        stop.set()
        swapping.join()
    assert seen <= {"inside"}
