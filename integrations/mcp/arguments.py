"""Whether arguments fit a tool's schema, said so that whoever wrote them can mend them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

_MOST_PROBLEMS = 10
# An empty registry: a `$ref` of a server's schema must not make us fetch URLs.
_NO_RETRIEVAL: Registry[Any] = Registry()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with arguments; `path` is like `items[0].name`, empty for the whole."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def validate_arguments(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with `arguments`, the first ten problems; empty where they fit.

    A schema that is itself invalid, or points outside itself, is the server's to judge: it fits everything.
    """
    validator = validator_for(schema, default=Draft202012Validator)
    try:
        validator.check_schema(dict(schema))
        errors = sorted(validator(schema, registry=_NO_RETRIEVAL).iter_errors(arguments), key=_path)
    except (SchemaError, Unresolvable, TypeError):
        return []
    return [Problem(_path(error), _message(error)) for error in errors[:_MOST_PROBLEMS]]


def _path(error: ValidationError) -> str:
    path = ""
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _message(error: ValidationError) -> str:
    return error.message if len(error.message) <= 300 else error.message[:297] + "…"
