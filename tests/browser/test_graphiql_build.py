"""The GraphiQL that is served belongs to its source, and asks nobody else for anything."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "web" / "graphiql"
BUILD = ROOT / "app" / "static" / "graphiql"
MANIFEST = json.loads((BUILD / "build.json").read_text())
BUILD_AGAIN = "build it again: npm ci --prefix web/graphiql && npm run build --prefix web/graphiql"

TOP_LEVEL_SOURCES = ("index.html", "package.json", "package-lock.json", "vite.config.mjs")


def digests(folder: Path, names: list[str]) -> dict[str, str]:
    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in names}


def files_below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def test_build_is_of_this_source() -> None:
    names = [*TOP_LEVEL_SOURCES, *(f"src/{name}" for name in files_below(SOURCE / "src"))]
    assert digests(SOURCE, names) == MANIFEST["sources"], BUILD_AGAIN


def test_build_was_not_changed_by_hand() -> None:
    names = [name for name in files_below(BUILD) if name != "build.json"]
    assert digests(BUILD, names) == MANIFEST["outputs"], BUILD_AGAIN


def test_page_loads_only_what_is_in_the_build_and_runs_nothing_inline() -> None:
    page = (BUILD / "index.html").read_text()
    linked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert linked
    for address in linked:
        assert address.startswith("/static/graphiql/assets/")
        assert (BUILD / address.removeprefix("/static/graphiql/")).is_file()
    assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", page))
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)


def test_build_is_small_and_has_no_source_maps() -> None:
    sizes = {path.name: path.stat().st_size for path in BUILD.rglob("*") if path.is_file()}
    assert not [name for name in sizes if name.endswith(".map")]
    assert sum(sizes.values()) < 5.5e6


def test_lock_file_names_no_host() -> None:
    for project in (SOURCE, ROOT / "tests" / "clients"):
        assert '"resolved"' not in (project / "package-lock.json").read_text()
