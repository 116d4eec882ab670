"""What a client needs to draw the form in which somebody starts a session from a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.templates.parameters import MULTILINE, properties, resolved
from services.templates.spec import SECRET, Overridable, TemplateSpec


class FieldKind(StrEnum):
    """How a parameter is asked for."""

    TEXT = "TEXT"
    MULTILINE = "MULTILINE"
    NUMBER = "NUMBER"
    INTEGER = "INTEGER"
    BOOLEAN = "BOOLEAN"
    CHOICE = "CHOICE"
    MULTI_CHOICE = "MULTI_CHOICE"
    LIST = "LIST"
    SECRET = "SECRET"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Choice:
    """A value to choose, and what it is called."""

    value: Any
    title: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a value has to keep to; None where there is no limit."""

    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    format: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    multiple_of: float | None = None
    min_items: int | None = None
    max_items: int | None = None
    unique_items: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter. `items` are the limits of each item of a list."""

    name: str
    title: str
    description: str | None
    kind: FieldKind
    required: bool
    default: Any
    choices: Sequence[Choice]
    limits: Limits
    items: Limits | None
    item_kind: FieldKind | None
    deprecated: bool


@dataclass(frozen=True, slots=True)
class OverrideOption:
    """What may be given instead of what the template says, and what it says."""

    name: Overridable
    value: Any


def fields_of(spec: TemplateSpec, variables: Sequence[str]) -> list[Field]:
    """The fields in the order of the schema; secrets are chosen of `variables`, by name."""
    schema = spec.parameters
    return [
        _field(schema, name, parameter, variables, name in schema.get("required", ()) and "default" not in parameter)
        for name, parameter in properties(schema).items()
    ]


def overrides_of(spec: TemplateSpec) -> list[OverrideOption]:
    """What may be overridden, in the order of the schema of templates, each with what the template says."""
    stored = spec.model_dump(mode="json", by_alias=True)
    return [OverrideOption(each, stored[_PLACES[each]]) for each in Overridable if each in spec.overridable]


_PLACES = {
    Overridable.TITLE: "title",
    Overridable.LABELS: "labels",
    Overridable.VISIBILITY: "visibility",
    Overridable.MODEL: "model",
    Overridable.RUNTIME: "runtime",
    Overridable.SYSTEM_PROMPT: "systemPrompt",
    Overridable.PERMISSION_MODE: "permissionMode",
    Overridable.OPTIONS: "options",
    Overridable.MCP_SERVERS: "mcpServers",
    Overridable.MESSAGES: "messages",
    Overridable.BUDGET: "budget",
}


def _field(
    schema: Mapping[str, Any], name: str, parameter: Mapping[str, Any], variables: Sequence[str], required: bool
) -> Field:
    items = resolved(schema, parameter["items"]) if isinstance(parameter.get("items"), Mapping) else None
    choices = _choices(items if items is not None else parameter)
    kind = _kind(parameter, bool(choices))
    if kind is FieldKind.SECRET:
        choices = [Choice(variable, variable) for variable in variables]
    return Field(
        name=name,
        title=str(parameter.get("title") or name.replace("_", " ").strip().capitalize() or name),
        description=parameter.get("description"),
        kind=kind,
        required=required,
        default=parameter.get("default"),
        choices=choices,
        limits=_limits(parameter),
        items=None if items is None else _limits(items),
        item_kind=None if items is None else _kind(items, False),
        deprecated=bool(parameter.get("deprecated")),
    )


def _kind(parameter: Mapping[str, Any], has_choices: bool) -> FieldKind:
    type_ = parameter.get("type")
    if parameter.get(SECRET):
        return FieldKind.SECRET
    if type_ == "array":
        return FieldKind.MULTI_CHOICE if has_choices else FieldKind.LIST
    if has_choices:
        return FieldKind.CHOICE
    if parameter.get(MULTILINE):
        return FieldKind.MULTILINE
    return {"number": FieldKind.NUMBER, "integer": FieldKind.INTEGER, "boolean": FieldKind.BOOLEAN}.get(
        str(type_), FieldKind.TEXT
    )


def _choices(parameter: Mapping[str, Any]) -> list[Choice]:
    if "oneOf" in parameter:
        return [
            Choice(each["const"], str(each.get("title") or each["const"]), each.get("description"))
            for each in parameter["oneOf"]
        ]
    values = [parameter["const"]] if "const" in parameter else parameter.get("enum", ())
    return [Choice(value, value if isinstance(value, str) else str(value).lower()) for value in values]


def _limits(parameter: Mapping[str, Any]) -> Limits:
    return Limits(
        min_length=parameter.get("minLength"),
        max_length=parameter.get("maxLength"),
        pattern=parameter.get("pattern"),
        format=parameter.get("format"),
        minimum=parameter.get("minimum"),
        maximum=parameter.get("maximum"),
        exclusive_minimum=parameter.get("exclusiveMinimum"),
        exclusive_maximum=parameter.get("exclusiveMaximum"),
        multiple_of=parameter.get("multipleOf"),
        min_items=parameter.get("minItems"),
        max_items=parameter.get("maxItems"),
        unique_items=bool(parameter.get("uniqueItems")),
    )
