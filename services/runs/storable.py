"""What tools and models say, as text and JSON that PostgreSQL and orjson can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

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


def _text(text: str) -> str:
    text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text
