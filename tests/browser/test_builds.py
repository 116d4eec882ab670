"""The pages that are served belong to their source, and ask nobody else for anything."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_BYTES = {"graphiql": 5.5e6, "dashboard": 0.8e6}
BUILD_AGAIN = "build it again: make graphiql, make dashboard"

TOP_LEVEL_SOURCES = ("index.html", "package.json", "package-lock.json", "vite.config.mjs")


@pytest.fixture(params=sorted(LARGEST_BYTES))
def page(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def source_of(page: str) -> Path:
    return ROOT / "web" / page


def build_of(page: str) -> Path:
    return ROOT / "app" / "static" / page


def manifest_of(page: str) -> Any:
    return json.loads((build_of(page) / "build.json").read_text())


def digests(folder: Path, names: list[str]) -> dict[str, str]:
    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in names}


def files_below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def test_build_is_of_this_source(page: str) -> None:
    source = source_of(page)
    names = [*TOP_LEVEL_SOURCES, *(f"src/{name}" for name in files_below(source / "src"))]
    assert digests(source, names) == manifest_of(page)["sources"], BUILD_AGAIN


def test_build_was_not_changed_by_hand(page: str) -> None:
    names = [name for name in files_below(build_of(page)) if name != "build.json"]
    assert digests(build_of(page), names) == manifest_of(page)["outputs"], BUILD_AGAIN


def test_page_loads_only_what_is_in_the_build_and_runs_nothing_inline(page: str) -> None:
    html = (build_of(page) / "index.html").read_text()
    linked = re.findall(r'(?:src|<link[^>]* href)="([^"]+)"', html)
    assert linked
    for address in linked:
        assert address.startswith(f"/static/{page}/assets/")
        assert (build_of(page) / address.removeprefix(f"/static/{page}/")).is_file()
    assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    assert not re.search(r"<style|\sstyle=|\son\w+=", html)


def test_build_is_small_and_has_no_source_maps(page: str) -> None:
    sizes = {path.name: path.stat().st_size for path in build_of(page).rglob("*") if path.is_file()}
    assert not [name for name in sizes if name.endswith(".map")]
    assert sum(sizes.values()) < LARGEST_BYTES[page]


def test_lock_file_names_no_host() -> None:
    for project in (*map(source_of, LARGEST_BYTES), ROOT / "tests" / "clients"):
        assert '"resolved"' not in (project / "package-lock.json").read_text()
