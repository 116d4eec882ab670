"""Putting values where a template says `{{ name }}`.

It is done once, in one pass: what a value says is data, and never looked at again. Messages that are programs of their
runtime (playbooks, tool calls) are not rendered as text; `Runtime.with_values` gives them the values as data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import BadInput

_REFERENCE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


def references(text: str) -> set[str]:
    """The names of parameters that a text refers to."""
    return {found[1] for found in _REFERENCE.finditer(text)}


def render(text: str, values: Mapping[str, Any]) -> str:
    """The text with its values: texts as they are, numbers, booleans and arrays as JSON; what has no value is empty."""
    return _REFERENCE.sub(lambda found: _as_text(values.get(found[1])), text)


def undeclared(texts: Iterable[tuple[str, str]], declared: Iterable[str]) -> list[tuple[str, str]]:
    """(field, message) of each (field, text) that refers to what is no parameter."""
    known = set(declared)
    return [
        (field, f"There is no parameter {', '.join(sorted(missing))}; declare it in parameters.")
        for field, text in texts
        if (missing := references(text) - known)
    ]


def check_declared(texts: Iterable[tuple[str, str]], declared: Iterable[str]) -> None:
    """Raises BadInput with all (field, text) that refer to what is no parameter."""
    if problems := undeclared(texts, declared):
        raise BadInput.of_fields(problems)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
