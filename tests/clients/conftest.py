"""What the tests with foreign GraphQL clients share: the Node project of this folder and the documents they send."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from tests.tools import node_path, npm_install

FOLDER = Path(__file__).parent
PATIENCE_SECONDS = 60

Node: TypeAlias = Callable[..., Any]


@pytest.fixture
def node() -> Node:
    """Runs a script of this folder: `await node("apollo.mjs", url, token)` returns the JSON lines that it printed."""
    npm_install(FOLDER)

    async def run(script: str, *arguments: str) -> list[dict[str, Any]]:
        with anyio.fail_after(PATIENCE_SECONDS):
            finished = await anyio.run_process([str(node_path()), str(FOLDER / script), *arguments], check=False)
        assert finished.returncode == 0, finished.stderr.decode()
        return [json.loads(line) for line in finished.stdout.splitlines()]

    return run


@pytest.fixture
def document() -> Callable[[str], str]:
    """The text of a document in documents/: `document("viewer")`."""
    return lambda name: (FOLDER / "documents" / f"{name}.graphql").read_text()
