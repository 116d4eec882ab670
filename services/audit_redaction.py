"""What of a value may stand in the audit log: no secrets, no more than fits, and nothing that JSON cannot carry."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from pathlib import PurePath
from typing import Any
from uuid import UUID

import orjson
from pydantic import Secret, SecretBytes, SecretStr

REDACTED = "[redacted]"
CUT = "[cut]"

MAX_RECORD_BYTES = 16 * 1024
"""Most that `before`, `after` and `details` of one record take together, as JSON."""
MAX_TEXT_BYTES = 4 * 1024
"""Most that one text of them takes."""
_MARKERS = 1024
"""Kept free for the marks that say what was cut."""
_MAX_DEPTH = 20
_MAX_KEY = 200
_EXACT_INTEGERS = 2**53
"""Beyond it JSON's numbers are not the same to all readers (RFC 8785, 3.2.2.3), so larger ones become text."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = frozenset(
    {"apikey", "authorization", "cookie", "cookies", "credential", "credentials", "jwt", "passphrase", "passwd"}
    | {"password", "passwords", "sealed", "secret", "secrets", "token"}
)
_SECRET_KEYS = frozenset({"access", "api", "private", "secret", "signing"})
"""What makes a `key` a secret one."""
_ABOUT_SECRETS = frozenset({"at", "count", "hint", "id", "ids", "kind", "name", "names", "prefix", "type"})
"""Endings of keys that tell of a secret without giving it: `token_id`, `secret_names`."""
_VALUES_ARE_SECRET = frozenset({"env", "environ", "environment", "headers"})
"""Names of mappings whose own names are free, so that any value may be a secret."""
_SECRETS_IN_TEXT = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), REDACTED),
    (re.compile(r"(?i)\b(bearer|basic) [A-Za-z0-9._~+/=-]{8,}"), rf"\1 {REDACTED}"),
    (re.compile(r"://[^/\s:@]{0,200}:[^/\s@]{1,200}@"), f"://{REDACTED}@"),
    (re.compile(r"\b(?:qd[a-z]{1,2}_|sk-)[A-Za-z0-9_-]{20,}"), REDACTED),
)


def redact(*values: Mapping[str, Any] | None) -> list[dict[str, Any] | None]:
    """The values as they may be kept: JSON, 16 KiB together, `[redacted]` for secrets and `[cut]` where there was more.

    Secrets are the values of keys that sound like one (`password`, `apiKey`, `GITHUB_TOKEN`), all values of mappings
    called `headers` or `environment`, bytes, pydantic's secret types, and what looks like a credential inside a text.
    """
    left = MAX_RECORD_BYTES - _MARKERS
    found: list[dict[str, Any] | None] = []
    for waiting, value in zip(range(len(values), 0, -1), values, strict=True):
        if value is None:
            found.append(None)
            continue
        copy = _Copy(left // waiting)
        found.append(copy.mapping(value, 0, secret=False))
        left -= left // waiting - max(copy.left, 0)
    return found


def plain_text(text: str | None, size: int) -> str | None:
    """A text of at most `size` bytes, marked where it was cut, without credentials and what a column cannot hold."""
    if text is None:
        return None
    # A credential on the border is still seen whole.
    text = text[: 2 * size].replace("\0", "\ufffd").encode(errors="replace").decode()
    for pattern, instead in _SECRETS_IN_TEXT:
        text = pattern.sub(instead, text)
    data = text.encode()
    return text if len(data) <= size else data[: max(size - len(CUT), 0)].decode(errors="ignore") + CUT


def is_secret_key(key: str) -> bool:
    """Whether a key sounds as if its value were a secret."""
    words = [word.lower() for word in _WORD.findall(key)]
    if not words or words[-1] in _ABOUT_SECRETS:
        return False
    return not _SECRET_WORDS.isdisjoint(words) or any(a in _SECRET_KEYS and b == "key" for a, b in pairwise(words))


class _Copy:
    """Copies a value while there is room."""

    def __init__(self, left: int) -> None:
        self.left = left

    def mapping(self, value: Mapping[Any, Any], depth: int, *, secret: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for index, (key, item) in enumerate(value.items()):
            if self.left <= 0:
                found[CUT] = f"{len(value) - index} more"
                break
            name = plain_text(str(key), _MAX_KEY) or ""
            self.left -= _size(name)
            if item is not None and (secret or is_secret_key(name)) and not isinstance(item, Mapping | bool):
                found[name] = self._keep(REDACTED)
            else:
                words = [word.lower() for word in _WORD.findall(name)]
                below = secret or is_secret_key(name) or (bool(words) and words[-1] in _VALUES_ARE_SECRET)
                found[name] = self._value(item, depth + 1, secret=below and isinstance(item, Mapping))
        return found

    def _value(self, value: Any, depth: int, *, secret: bool = False) -> Any:
        if depth > _MAX_DEPTH:
            return self._keep(CUT)
        match value:
            case None | bool():
                return self._keep(value)
            case Enum():
                return self._value(value.value, depth)
            case str():
                return self._text(value)
            case int() | float():
                return self._keep(_number(value))
            case Mapping():
                return self.mapping(value, depth, secret=secret)
            case list() | tuple() | set() | frozenset():
                return self._items(value, len(value), depth)
            case datetime() | date():
                return self._keep(value.isoformat())
            case UUID() | Decimal() | PurePath():
                return self._text(str(value))
            case bytes() | bytearray() | memoryview() | Secret() | SecretStr() | SecretBytes():
                return self._keep(REDACTED)
        # Its text might show what nobody looked at.
        return self._keep(f"[{type(value).__name__}]")

    def _items(self, values: Iterable[Any], count: int, depth: int) -> list[Any]:
        found: list[Any] = []
        for index, item in enumerate(values):
            if self.left <= 0:
                found.append(f"{CUT} {count - index} more")
                break
            found.append(self._value(item, depth + 1))
        return found

    def _text(self, value: str) -> str:
        text = plain_text(value, MAX_TEXT_BYTES) or ""
        while _size(text) > max(self.left, len(CUT) + 3):
            text = text.removesuffix(CUT)
            text = text[: len(text) // 2] + CUT
        self._keep(text)
        return text

    def _keep(self, value: Any) -> Any:
        self.left -= _size(value)
        return value


def _number(value: float) -> int | float | str:
    if not math.isfinite(value) or abs(value) >= _EXACT_INTEGERS:
        return str(value)
    return int(value) if value == int(value) else value


def _size(value: Any) -> int:
    """Bytes of a scalar as JSON, with the comma or colon behind it."""
    return len(orjson.dumps(value)) + 1
