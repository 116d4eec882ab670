"""Templates as YAML files: written in one order, read strictly, with a JSON Schema that editors and CI check them by.

A file has documents of this shape, one for each template:

    apiVersion: quarterdeck/v1
    kind: SessionTemplate
    metadata: {name, title, summary, icon, category, labels}
    spec: {…}

Nothing of an installation goes into a file: neither ids, owners, sharing and versions, nor values of secrets, of which
a specification has only the names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema

from core import yaml_text
from core.errors import BadInput, QuarterdeckError, TooLarge
from models.base import Row
from services.templates.credentials import Finding, findings
from services.templates.spec import TemplateSpec, check_spec, load_spec

API_VERSION = "quarterdeck/v1"
KIND = "SessionTemplate"

LARGEST_FILE = 1_500_000
"""Characters."""
MOST_DOCUMENTS = 50
_MOST_LEVELS = 60
_MOST_PARTS = 50_000
_MOST_OF_A_KEY = 100
"""Characters that an error repeats."""

_NAME = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"
_SCHEMA_ID = "urn:quarterdeck:schema:session-template:v1"

# How the keywords of a parameter's schema are put: as people write them. The rest follows by name.
_KEYWORDS = (
    "$schema",
    "$comment",
    "$ref",
    "type",
    "title",
    "description",
    "format",
    "enum",
    "const",
    "oneOf",
    "default",
)
_LATER_KEYWORDS = ("items", "properties", "required", "additionalProperties", "$defs")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class TemplateMetadata(_Strict):
    """What a template is called, and what it is found by."""

    name: str = Field(pattern=_NAME, description="Which template of the organisation it is: code-review.")
    title: str = Field(min_length=1, max_length=200)
    summary: str = Field("", max_length=500)
    icon: str | None = Field(None, max_length=64, description="An emoji, or a name.")
    category: str = Field(min_length=1, max_length=64, description="The key of one of the organisation's categories.")
    labels: dict[str, str] = Field(default_factory=dict, max_length=32)


class TemplateDocument(_Strict):
    """A session template of Quarterdeck."""

    api_version: Literal["quarterdeck/v1"]
    kind: Literal["SessionTemplate"]
    metadata: TemplateMetadata
    spec: TemplateSpec


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """A template, or one of its versions, as a file."""

    name: str
    text: str
    digest: str
    """Of the specification."""
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class ReadTemplate:
    """A template that was read from a file."""

    index: int
    """Which document of the file it is, from 0."""
    metadata: TemplateMetadata
    spec: TemplateSpec
    document: yaml_text.Document

    def located(self, error: QuarterdeckError) -> QuarterdeckError:
        """The same error, saying where in the file it is."""
        fields = error.details.get("fields") or [{"field": error.field or "name", "message": error.message}]
        found = [self._located(each) for each in fields]
        return type(error)(_told(found), **{**error.details, "fields": found})

    def _located(self, problem: Mapping[str, Any]) -> dict[str, Any]:
        path = problem["field"].split(".")
        if path[0] not in ("spec", "metadata"):
            path = ["metadata", *path]
        return _problem(
            self.index, self.document, [int(part) if part.isdecimal() else part for part in path], problem["message"]
        )


def write_file(template: Row, spec: Mapping[str, Any], digest: str) -> TemplateFile:
    """A template as a file; `spec` is its draft, or the specification of one of its versions, as it is stored.

    Raises TooLarge for what could not be read again.
    """
    metadata = {
        "name": template["name"],
        "title": template["title"],
        **({"summary": template["summary"]} if template["summary"] else {}),
        **({"icon": template["icon"]} if template["icon"] else {}),
        "category": template["category"],
        **({"labels": _by_name(template["labels"])} if template["labels"] else {}),
    }
    loaded = load_spec(dict(spec)).stored()
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": _ordered(loaded)}
    text = yaml_text.write(document)
    if len(text) > LARGEST_FILE:
        # Very many short lines take more room for their indentation than for themselves.
        text = yaml_text.write(document, literally=False)
    try:
        for _ in yaml_text.bounded_events(text, levels=_MOST_LEVELS, parts=_MOST_PARTS):
            pass
    except yaml_text.YamlProblems as error:
        raise _too_large(template["name"], error.problems[0].message) from None
    if len(text) > LARGEST_FILE:
        raise _too_large(template["name"], f"it has more than {LARGEST_FILE:,} characters")
    return TemplateFile(template["name"], text, digest, list(findings(loaded)))


def read_file(text: str, *, field: str = "content") -> list[ReadTemplate]:
    """The templates of a file. Raises TooLarge, and BadInput with all problems at once, each with its line, column and
    place."""
    if len(text) > LARGEST_FILE:
        raise TooLarge(f"A file has at most {LARGEST_FILE:,} characters.", field=field)
    try:
        documents = yaml_text.read(text, levels=_MOST_LEVELS, parts=_MOST_PARTS, documents=MOST_DOCUMENTS)
    except yaml_text.YamlProblems as error:
        raise _refused(
            [
                {"field": _field(0, each.path) if each.path else field, "message": each.message}
                | {"line": each.line, "column": each.column}
                for each in error.problems
            ]
        ) from None
    if not documents:
        raise BadInput("There is no template in the file.", field=field)
    found: list[ReadTemplate] = []
    problems: list[dict[str, Any]] = []
    for index, document in enumerate(documents):
        try:
            found.append(_read(index, document))
        except BadInput as error:
            problems += error.details["fields"]
    lines: dict[str, int] = {}
    for each in found:
        line, _ = each.document.place(("metadata", "name"))
        first = lines.setdefault(each.metadata.name, line)
        if first != line:
            message = f"{each.metadata.name} is in the file twice; the first is in line {first}"
            problems.append(_problem(each.index, each.document, ("metadata", "name"), message))
    if problems:
        raise _refused(problems[: yaml_text.MOST_PROBLEMS])
    return found


@cache
def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a document."""
    found = TemplateDocument.model_json_schema(by_alias=True, schema_generator=GenerateJsonSchema)
    return {"$schema": GenerateJsonSchema.schema_dialect, "$id": _SCHEMA_ID, **found}


@cache
def json_schema_text() -> str:
    """The same as it is published."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


# -- reading


def _read(index: int, document: yaml_text.Document) -> ReadTemplate:
    value = document.value
    if isinstance(value, dict) and ("apiVersion" in value and value["apiVersion"] != API_VERSION):
        raise _refused([_problem(index, document, ("apiVersion",), f"this is for {API_VERSION} alone")])
    try:
        parsed = TemplateDocument.model_validate(value)
        check_spec(value["spec"])
    except ValidationError as error:
        raise _refused([_explained(index, document, each) for each in error.errors()]) from None
    except (BadInput, TooLarge) as error:
        problems = error.details.get("fields") or [{"field": error.field, "message": error.message}]
        raise _refused(
            [_problem(index, document, (each["field"] or "spec").split("."), each["message"]) for each in problems]
        ) from None
    return ReadTemplate(index, parsed.metadata, parsed.spec, document)


def _explained(index: int, document: yaml_text.Document, error: Any) -> dict[str, Any]:
    path = tuple(error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    spelling = document.spellings.get(path)
    if error["type"] == "string_type" and spelling is not None:
        message = f"this is text, and YAML reads {spelling or 'nothing'} as {_kind(error['input'])}: put it into quotes"
    elif error["type"] == "extra_forbidden":
        message = "there is no such key here"
    elif error["type"] == "missing":
        message = "it is missing"
    return _problem(index, document, path, message)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "no value"
        case bool():
            return "a truth value"
    return "a number"


def _problem(index: int, document: yaml_text.Document, path: Sequence[str | int], message: str) -> dict[str, Any]:
    line, column = document.place(path)
    return {"field": _field(index, path), "message": message, "line": line, "column": column}


def _field(index: int, path: Sequence[str | int]) -> str:
    return ".".join(["documents", str(index), *(str(part)[:_MOST_OF_A_KEY] for part in path)])


def _where(problem: Mapping[str, Any]) -> str:
    place = problem["field"].split(".", 2)[2:]
    return " ".join([f"line {problem['line']}, column {problem['column']}", *place])


def _refused(problems: Sequence[dict[str, Any]]) -> BadInput:
    ordered = sorted(problems, key=lambda each: (each["line"], each["column"]))
    return BadInput(_told(ordered), fields=ordered)


def _told(problems: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{_where(each)}: {each['message']}" for each in problems)


# -- writing


def _too_large(name: str, why: str) -> TooLarge:
    return TooLarge(
        f"{name} cannot be written as a file that could be read again: {why}. Put large files into a repository or an "
        "archive."
    )


def _ordered(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A stored specification with the keys that are free in an order, too. The others are in the order of TemplateSpec;
    the database keeps none."""
    found = dict(spec)
    if "parameters" in found:
        found["parameters"] = _schema(found["parameters"])
    if "labels" in found:
        found["labels"] = _by_name(found["labels"])
    if "options" in found:
        found["options"] = dict(found["options"])
        for name in found["options"].keys() & {"extra", "outputSchema"}:
            order = _by_name if name == "extra" else _schema
            found["options"][name] = order(found["options"][name])
    if "parameters" in found.get("test", {}):
        found["test"] = found["test"] | {"parameters": _by_name(found["test"]["parameters"])}
    return found


def _by_name(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _by_name(value[key]) for key in sorted(value)}
        case list() | tuple():
            return [_by_name(item) for item in value]
    return value


def _schema(value: Any) -> Any:
    match value:
        case Mapping():
            return {
                key: {name: _schema(value[key][name]) for name in sorted(value[key])}
                if key in ("properties", "$defs") and isinstance(value[key], Mapping)
                else (_schema if key in ("items", "oneOf") else _by_name)(value[key])
                for key in sorted(value, key=_place_of_keyword)
            }
        case list() | tuple():
            return [_schema(item) for item in value]
    return value


def _place_of_keyword(key: str) -> tuple[int, str]:
    if key in _KEYWORDS:
        return _KEYWORDS.index(key), key
    return len(_KEYWORDS) + (1 + _LATER_KEYWORDS.index(key) if key in _LATER_KEYWORDS else 0), key
