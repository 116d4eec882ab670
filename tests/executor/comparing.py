"""What it means that two executions of an operation came to the same."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from graphql import ExecutionResult

from schema.bodies import as_json

Place = tuple[Any, ...]


def differences(reference: ExecutionResult, found: ExecutionResult) -> list[str]:
    """How a result differs from the reference; empty where it does not.

    Data has to be the same, as clients get it, to the order of its keys. Errors have to be the same in any order. Where
    a place is null because of errors below it, which of them are told depends on which came first: there some are
    enough.
    """
    problems = []
    if as_json({"data": reference.data}) != as_json({"data": found.data}):
        problems.append(f"data:\n  {reference.data!r}\n  {found.data!r}")
    expected, actual = _errors(reference), _errors(found)
    for place in expected.keys() | actual.keys():
        ours, theirs = actual.get(place, {}), expected.get(place, {})
        if ours == theirs:
            continue
        spread = all(path != place for path in ours.keys() | theirs.keys())
        below = any(path != place for path in ours.keys() | theirs.keys())
        shared = ours.keys() & theirs.keys()
        if not ours or not theirs or not (spread or below) or any(ours[path] != theirs[path] for path in shared):
            problems.append(f"errors at {place}:\n  {theirs}\n  {ours}")
    return problems


def _errors(result: ExecutionResult) -> dict[Place, dict[Place, list[Any]]]:
    """The errors by the place that is null because of them, and by their own."""
    found: dict[Place, dict[Place, list[Any]]] = defaultdict(dict)
    for error in result.errors or []:
        path = tuple(error.path or ())
        original = error.original_error
        told = found[_null_place(result.data, path)].setdefault(path, [])
        assert not (told and path), f"two errors at {path}"
        locations = [tuple(location) for location in error.locations or ()]
        told.append((error.message, locations, repr(original), error.extensions))
    return found


def _null_place(data: Any, path: Place) -> Place:
    for length, key in enumerate(path):
        if data is None:
            return path[:length]
        data = data[key]
    return path
