"""What is wrong with a template's configuration, each with its place and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Self

_NAMED = 5


class Severity(StrEnum):
    """Whether a template can be used with a finding."""

    ERROR = "ERROR"
    WARNING = "WARNING"


class FindingCode(StrEnum):
    """What a finding is about."""

    MALFORMED = "MALFORMED"
    UNKNOWN_RUNTIME = "UNKNOWN_RUNTIME"
    RUNTIME_UNAVAILABLE = "RUNTIME_UNAVAILABLE"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    MODEL_MISSING = "MODEL_MISSING"
    MODEL_UNUSED = "MODEL_UNUSED"
    UNKNOWN_OPTION = "UNKNOWN_OPTION"
    UNKNOWN_SERVER = "UNKNOWN_SERVER"
    SERVER_UNREACHABLE = "SERVER_UNREACHABLE"
    SERVER_UNCHECKED = "SERVER_UNCHECKED"
    UNKNOWN_TOOL = "UNKNOWN_TOOL"
    PARAMETER_SCHEMA = "PARAMETER_SCHEMA"
    PARAMETER_DEFAULT = "PARAMETER_DEFAULT"
    PARAMETER_UNUSED = "PARAMETER_UNUSED"
    TEST_PARAMETER = "TEST_PARAMETER"
    UNDECLARED_VARIABLE = "UNDECLARED_VARIABLE"
    SECRET_MISSING = "SECRET_MISSING"  # noqa: S105
    BAD_MESSAGE = "BAD_MESSAGE"
    NO_MESSAGE = "NO_MESSAGE"
    BUDGET_WITHOUT_PRICE = "BUDGET_WITHOUT_PRICE"
    SEED_CONFLICT = "SEED_CONFLICT"
    SEED_ADDRESS = "SEED_ADDRESS"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or may be."""

    severity: Severity
    code: FindingCode
    path: str
    """JSON pointer (RFC 6901) into the configuration; empty for all of it."""
    message: str
    suggestion: str | None = None

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "severity": self.severity.value,
            "code": self.code.value,
            "path": self.path,
            "message": self.message,
            "suggestion": self.suggestion,
        }

    @classmethod
    def load(cls, stored: dict[str, Any]) -> Self:
        """As it was stored."""
        return cls(
            Severity(stored["severity"]),
            FindingCode(stored["code"]),
            stored["path"],
            stored["message"],
            stored["suggestion"],
        )


def error(code: FindingCode, path: str, message: str, suggestion: str | None = None) -> Finding:
    """Something with which the template cannot be used."""
    return Finding(Severity.ERROR, code, path, message, suggestion)


def warning(code: FindingCode, path: str, message: str, suggestion: str | None = None) -> Finding:
    """Something that may not be meant so."""
    return Finding(Severity.WARNING, code, path, message, suggestion)


def errors_among(findings: Iterable[Finding]) -> list[Finding]:
    """Those with which the template cannot be used."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def pointer(*parts: str | int) -> str:
    """A JSON pointer."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def pointer_of_field(field: str, root: str) -> str:
    """The pointer to a field that an error names: `parameters.properties.n` below the root `parameters`."""
    rest = field.removeprefix(root).strip(".")
    return pointer(*root.split("."), *(rest.split(".") if rest else ()))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """What is called nearly so, as a suggestion; else some of what there is; None where there is nothing."""
    names: Sequence[str] = sorted(known)
    if close := get_close_matches(name, names, n=3, cutoff=0.5):
        return f"Did you mean {' or '.join(close)}?"
    if not names:
        return None
    return f"There are {', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''}."
