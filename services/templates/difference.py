"""What is different between two configurations of a template."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MOST_CHANGES = 1000
MOST_LINES = 2000
"""Lines of a text that is compared line by line; what is longer is only said to be different."""
_ALL_LINES = 10_000
_LONG = 60
"""Characters from which a text in one line is worth comparing as a text."""


class TemplateChangeKind(StrEnum):
    """How something is different."""

    ADDED = "ADDED"
    REMOVED = "REMOVED"
    CHANGED = "CHANGED"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different. `path` is a JSON pointer (RFC 6901) whose steps into lists of named things are
    their names."""

    path: str
    kind: TemplateChangeKind
    before: Any = None
    after: Any = None
    text_difference: str | None = None
    """Unified, for texts."""


# What the elements of these lists are called by; a list that is not here is one of texts, or goes by position.
_NAMED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "/mcpServers": lambda each: each["server"],
    "/seed/files": lambda each: each["path"],
    "/approvalRules": lambda each: each["tool"],
    "/options/subagents": lambda each: each["name"],
}
_IN_ORDER = {"/approvalRules"}
"""Named things whose order means something."""
_BY_POSITION = {"/messages", "/test/messages", "/test/checks"}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What is different, of two configurations as they are stored; at most 1,000 changes and one more."""
    found: list[Change] = []
    lines = _ALL_LINES
    for change in _compare("", before, after):
        if len(found) > MOST_CHANGES:
            break
        if change.kind is TemplateChangeKind.CHANGED and _is_text(change.before) and _is_text(change.after):
            old, new = change.before.splitlines(), change.after.splitlines()
            longest = max(len(old), len(new))
            if longest <= min(MOST_LINES, lines) and ("\n" in change.before + change.after or _is_long(change)):
                lines -= longest
                text = "\n".join(difflib.unified_diff(old, new, "before", "after", lineterm=""))
                change = Change(change.path, change.kind, change.before, change.after, text)
        found.append(change)
    return found


def _compare(path: str, before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _compare_named(path, before, after)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _compare_lists(path, before, after)
    else:
        yield Change(path, TemplateChangeKind.CHANGED, before, after)


def _compare_named(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in [*before, *(name for name in after if name not in before)]:
        place = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in after:
            yield Change(place, TemplateChangeKind.REMOVED, before=before[name])
        elif name not in before:
            yield Change(place, TemplateChangeKind.ADDED, after=after[name])
        else:
            yield from _compare(place, before[name], after[name])


def _compare_lists(path: str, before: Sequence[Any], after: Sequence[Any]) -> Iterator[Change]:
    if path in _NAMED:
        old, new = _by_name(_NAMED[path], before), _by_name(_NAMED[path], after)
        yield from _compare_named(path, old, new)
        if path in _IN_ORDER:
            was, is_ = [name for name in old if name in new], [name for name in new if name in old]
            if was != is_:
                yield Change(path, TemplateChangeKind.CHANGED, list(old), list(new))
    elif path not in _BY_POSITION and all(isinstance(each, str) for each in [*before, *after]):
        # Which texts are in it, and not where: tools, variables, skills.
        yield from _compare_named(path, {each: each for each in before}, {each: each for each in after})
        if set(before) == set(after):
            yield Change(path, TemplateChangeKind.CHANGED, list(before), list(after))
    else:
        yield from _compare_named(
            path, {str(i): each for i, each in enumerate(before)}, {str(i): each for i, each in enumerate(after)}
        )


def _by_name(name_of: Callable[[Mapping[str, Any]], str], elements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Elements by their names; a second one of the same name is `NAME#2`."""
    found: dict[str, Any] = {}
    for each in elements:
        name = wanted = name_of(each)
        number = 1
        while name in found:
            number += 1
            name = f"{wanted}#{number}"
        found[name] = each
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_long(change: Change) -> bool:
    return max(len(change.before), len(change.after)) >= _LONG
