"""What the commands `documents …` do: which documents client programs are known to send."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from app.dev import database
from app.wiring import among_processes, connected
from core.errors import BadInput
from core.settings import Settings
from models.audit import INSTALLATION
from schema.build import served_schema
from schema.execution import Graph
from services import documents
from services.identity.actors import system_actor

Echo = Callable[[str], object]

_MANIFEST = "apollo-persisted-query-manifest"
_MOST_TOLD = 20


async def register(settings: Settings, client: str, release: str, files: Sequence[Path], echo: Echo) -> None:
    """Register what is in the files, all or nothing. Raises BadInput, which names the documents that do not fit."""
    found: dict[str, str] = {}
    for path in files:
        for identifier, text in read_file(path).items():
            if found.setdefault(identifier, text) != text:
                raise BadInput(f"{path}: the id {identifier} stands for another document in a file before.")
    graph = _graph(settings)
    if problems := [f"{identifier}: {said}" for identifier, text in found.items() for said in graph.problems(text)]:
        raise BadInput("Nothing was registered.\n  " + "\n  ".join(_shortened(problems)))
    async with _connected(settings):
        made = await documents.register(system_actor(INSTALLATION), client, release, found, by=_operator())
    echo(f"{client} {release}: {made.total} documents, {made.added} of them new to it.")


async def list_releases(settings: Settings, echo: Echo) -> None:
    async with _connected(settings):
        for row in await documents.releases():
            state = f"retired {row['retired_at']:%Y-%m-%d}" if row["retired_at"] else "in use"
            echo(
                f"{row['client']}  {row['release']}  {row['documents']:>5} documents  {state:<18}  "
                f"{row['registered_at']:%Y-%m-%d} by {row['registered_by']}"
            )


async def retire(settings: Settings, client: str, release: str, echo: Echo) -> None:
    async with _connected(settings):
        gone = await documents.retire(system_actor(INSTALLATION), client, release)
    echo(f"Retired. {gone} documents are not executed any more; those that other releases use stay.")


async def check(settings: Settings, echo: Echo) -> bool:
    """Say which documents in use today's schema or limits refuse; returns whether there is none."""
    graph = _graph(settings)
    async with _connected(settings):
        rows = await documents.living()
    broken = 0
    for row in rows:
        if problems := graph.problems(row["text"]):
            broken += 1
            echo(f"{row['id']} ({', '.join(row['releases'])})")
            for said in _shortened(problems):
                echo(f"  {said}")
    echo(f"{len(rows)} documents in use, {broken} of them broken." if broken else f"All {len(rows)} documents fit.")
    return not broken


def read_file(path: Path) -> dict[str, str]:
    """Documents by their ids: of a .graphql file, of a map (relay-compiler, GraphQL Code Generator), or of Apollo's
    manifest. Raises BadInput."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not text in UTF-8.") from None
    if path.suffix in (".graphql", ".gql"):
        return {documents.SHA256 + documents.sha256_of(text): text}
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise BadInput(f"{path} is no .graphql file and not JSON.") from None
    if isinstance(given, dict) and given.get("format") == _MANIFEST:
        given = _of_manifest(given, path)
    if not isinstance(given, dict) or not all(isinstance(text, str) and text for text in given.values()):
        raise BadInput(f'{path} is no map of documents, {{"ID": "query …"}}, and not Apollo\'s manifest.')
    return given


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[None]:
    with database(settings) as url:
        async with connected(among_processes(settings, url), url):
            yield


def _of_manifest(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    if manifest.get("version") != 1 or not isinstance(manifest.get("operations"), list):
        raise BadInput(f"{path} is Apollo's manifest of a version that is not known here: version 1 is.")
    found: dict[str, Any] = {}
    for operation in manifest["operations"]:
        if not isinstance(operation, dict) or not isinstance(operation.get("id"), str):
            raise BadInput(f"{path} has an operation without id.")
        if found.setdefault(operation["id"], operation.get("body")) != operation.get("body"):
            raise BadInput(f"{path} has two documents with the id {operation['id']}.")
    return found


def _graph(settings: Settings) -> Graph:
    return Graph(served_schema(), settings)


def _shortened(problems: list[str]) -> list[str]:
    rest = len(problems) - _MOST_TOLD
    return problems if rest <= 0 else [*problems[:_MOST_TOLD], f"… and {rest} more"]


def _operator() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"
