"""The house in order: names, sizes and words of the files that git tracks."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("app", "schema", "executor", "resolvers", "subscriptions", "services", "integrations", "models", "core")
LONGEST_FILE = 600
WRITTEN_BY_HAND = {".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".css", ".sh", ".sql", ".md"}
GENERATED = ("models/migrations/", "app/static/")

# Spelled in parts, or this file would name them.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs"),
        ("yarnpkg", "com"),
        ("deb", "debian"),
        ("archive", "ubuntu"),
    )
]
SOMEBODYS_FOLDER = re.compile(r"(?<![\w.\-/])/(home|Users|root)/\w+")


def tracked(*patterns: str) -> list[str]:
    """Paths that git tracks and that are there, relative to the root."""
    # In containers the clone often belongs to another user, which git takes for dubious.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for path in listed.stdout.split("\0") if path and (ROOT / path).is_file()]


def text_of(path: str) -> str:
    """What is in a tracked file; nothing for a binary one."""
    try:
        return (ROOT / path).read_text("utf-8")
    except UnicodeDecodeError:
        return ""


def test_no_installed_distribution_ships_a_name_of_ours() -> None:
    ours = {*ROOMS, "tests", "bench"}
    shipped = packages_distributions()
    assert {name: shipped[name] for name in ours & shipped.keys()} == {}


@pytest.mark.parametrize("room", [room for room in ROOMS if (ROOT / room).is_dir()])
def test_every_room_says_what_it_is_for(room: str) -> None:
    assert ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))


def test_no_file_is_long() -> None:
    lengths = {
        path: text_of(path).count("\n")
        for path in tracked()
        if Path(path).suffix in WRITTEN_BY_HAND and not path.startswith(GENERATED)
    }
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_no_file_names_a_registry_or_a_folder_of_somebodys_machine() -> None:
    found = []
    for path in tracked():
        if path.startswith(GENERATED):
            continue
        text = text_of(path)
        words = [host for host in REGISTRIES if host in text] + SOMEBODYS_FOLDER.findall(text)
        words += [str(ROOT)] if f"{ROOT}/" in text else []
        found += [f"{path}: {word}" for word in words]
    assert found == []


def test_locks_hold_checksums_and_no_addresses() -> None:
    for lock in tracked("requirements*.txt"):
        text = text_of(lock)
        assert "://" not in text, lock
        assert "--hash=sha256:" in text, lock
    for lock in tracked("*package-lock.json"):
        assert '"resolved"' not in text_of(lock), lock
