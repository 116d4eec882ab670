"""Text and JSON that PostgreSQL and orjson can hold: made of what tools and models say, asked of clients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from core.errors import BadInput

MOST_LEVELS = 100
_LARGEST_INTEGER = 2**63


def storable(value: Any, _level: int = 0) -> Any:
    """The value without what cannot be stored: NUL and lone surrogates become U+FFFD, integers over 64 bits,
    infinite numbers and what lies more than 100 levels deep become text."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -_LARGEST_INTEGER <= value < _LARGEST_INTEGER else str(value)
    if _level >= MOST_LEVELS:
        return "\u2026"
    if isinstance(value, Mapping):
        return {_text(str(key)): storable(item, _level + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item, _level + 1) for item in value]
    return _text(str(value))


def check_storable(value: Any, *, field: str) -> None:
    """Raises BadInput, naming the field, for JSON of a client that `storable` would have to alter."""
    if reason := _against(value, 0):
        raise BadInput(f"This JSON cannot be stored: {reason}.", field=field)


def _against(value: Any, level: int) -> str | None:
    if isinstance(value, str):
        return None if _text(value) == value else "it holds a NUL character or half of a surrogate pair; leave it out"
    if isinstance(value, float):
        return None if math.isfinite(value) else "it holds a number that is infinite or none at all"
    if isinstance(value, int):
        fits = -_LARGEST_INTEGER <= value < _LARGEST_INTEGER
        return None if fits else "it holds an integer of more than 64 bits; send it as text"
    if not isinstance(value, Mapping | list | tuple):
        return None
    if level >= MOST_LEVELS:
        return f"it is nested more than {MOST_LEVELS} levels deep"
    inside = (part for item in value.items() for part in item) if isinstance(value, Mapping) else iter(value)
    return next((reason for part in inside if (reason := _against(part, level + 1))), None)


def _text(text: str) -> str:
    text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text
