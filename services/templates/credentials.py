"""What in a template looks like a credential.

Templates name variables, and never have the values of secrets; this is for what somebody has written into a prompt, a
message or a file all the same.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.audit_redaction import is_secret_key

_CREDENTIAL = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    # The keys of this product, and those of providers that can be told by how they begin.
    r"|\b(?:qd[a-z]{1,2}_|sk-|sk_live_|rk_live_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|npm_|pypi-|AIza|hf_)"
    r"[A-Za-z0-9_-]{16,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    # "Basic knowledge" is none: without a digit it is taken for a word.
    r"|\b(?i:bearer|basic) (?=[A-Za-z._~+/=-]*[0-9])[A-Za-z0-9._~+/=-]{12,}"
    r"|://[^/\s:@{}]{1,200}:[^/\s@{}]{1,200}@"
)
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A value that looks like a credential, by its place: `spec.systemPrompt`."""

    path: str
    message: str


def findings(spec: Mapping[str, Any]) -> Iterator[Finding]:
    """What in a stored specification looks like a credential, in its order."""
    for path, key, text in _texts(spec, ("spec",), ""):
        place = ".".join(str(part) for part in path)
        if _CREDENTIAL.search(text):
            yield Finding(place, "This looks like a credential. Put it into an environment variable, and name that.")
        elif is_secret_key(key) and text and not _is_a_name(path, text):
            yield Finding(place, f"{key} sounds like a secret. Put it into an environment variable, and name that.")


def _is_a_name(path: Sequence[str | int], text: str) -> bool:
    """Whether a text under a key that sounds like a secret is what a schema says of a parameter, the name of the
    variable that a parameter takes, or a reference to a parameter."""
    return path[1] == "parameters" or path[1:3] == ("test", "parameters") or text.startswith("{{")


def _texts(value: Any, path: Path, key: str) -> Iterator[tuple[Path, str, str]]:
    match value:
        case Mapping():
            if value.get("encoding") == "base64":
                value = {**value, "content": _decoded(str(value.get("content")))}
            for name, item in value.items():
                yield from _texts(item, (*path, name), name)
        case list() | tuple():
            for index, item in enumerate(value):
                yield from _texts(item, (*path, index), key)
        case str():
            yield path, key, value


def _decoded(content: str) -> str:
    try:
        return base64.b64decode(content).decode(errors="replace")
    except (binascii.Error, ValueError):
        return content
