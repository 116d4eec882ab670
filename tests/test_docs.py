"""The documentation is true where a program can tell."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from click.testing import CliRunner
from graphql import build_schema, parse, validate

from app.cli import main
from core.settings import Settings

ROOT = Path(__file__).parents[1]


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;~ ]", requirement)[0] for requirement in requirements}


def test_every_setting_is_documented_and_nothing_else() -> None:
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE))
    real = {"PORT" if name == "port" else f"QUARTERDECK_{name.upper()}" for name in Settings.model_fields}
    assert documented == real


def test_settings_are_described_as_the_program_describes_them() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    assert [name for name, field in Settings.model_fields.items() if (field.description or "?") not in text] == []


def test_every_direct_dependency_has_a_row() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    direct = names_of(project["project"]["dependencies"])
    direct |= names_of([item for items in project["project"]["optional-dependencies"].values() for item in items])
    rows = set(re.findall(r"^\| ([a-z0-9-]+) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE))
    assert rows - {"package"} == direct
    development = names_of(project["dependency-groups"]["dev"])
    text = (ROOT / "docs/dependencies.md").read_text()
    assert [name for name in development if name not in text and not name.startswith("types-")] == []


def test_features_name_tests_that_exist() -> None:
    text = (ROOT / "docs/features.md").read_text()
    named = re.findall(r"`(tests/[\w/.-]+\.py)(?:::(\w+))?`", text)
    assert named
    for path, function in named:
        assert (ROOT / path).is_file(), path
        assert not function or f"def {function}(" in (ROOT / path).read_text(), f"{path}::{function}"


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_every_command_explains_itself() -> None:
    def walk(path: list[str], command: object) -> None:
        result = CliRunner().invoke(main, [*path, "--help"])
        assert result.exit_code == 0, path
        assert len(result.output.splitlines()) > 3, path
        for name, inner in getattr(command, "commands", {}).items():
            walk([*path, name], inner)

    walk([], main)


def test_every_operation_that_the_documents_suggest_is_valid() -> None:
    schema = build_schema((ROOT / "schema.graphql").read_text())
    suggested = re.findall(r"`((?:\{ |mutation |subscription )[^`]+)`", (ROOT / "docs/features.md").read_text())
    assert len(suggested) > 10
    for operation in suggested:
        assert validate(schema, parse(operation)) == [], operation
