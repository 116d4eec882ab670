"""schema.graphql is what clients are written against: it changes on purpose, and with the code."""

from __future__ import annotations

from pathlib import Path

from graphql import build_schema as build_from_sdl
from graphql import find_breaking_changes

from schema.build import build_schema

GOLDEN = Path(__file__).parents[2] / "schema.graphql"


def test_the_golden_schema_is_the_one_that_is_served() -> None:
    served = build_schema().as_str() + "\n"
    breaking = find_breaking_changes(build_from_sdl(GOLDEN.read_text()), build_from_sdl(served))
    assert served == GOLDEN.read_text(), (
        "The schema has changed. If that is meant, write it down with `make schema`. "
        f"Changes that break clients: {[change.description for change in breaking] or 'none'}"
    )
