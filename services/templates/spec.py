"""What a template consists of: the shape in which drafts and versions are stored, and in which files are written.

Everything here is data. What refers to other things (servers, variables, tools) does so by name, so that a template
means the same in another installation; services.templates.validation says what of it is not there.
"""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from core.errors import BadInput, TooLarge
from models.sessions import PermissionMode, Visibility
from services.runs.storable import check_storable
from services.sessions.options import ApprovalRule, SessionOptions

LARGEST_SPEC = 1024 * 1024
"""Bytes of JSON; what is larger belongs into a repository or an archive."""

PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?\Z")
SECRET = "x-quarterdeck-secret"  # noqa: S105
"""The keyword of a parameter whose value is the name of one of the organisation's environment variables. The session's
tools get the variable; prompts and messages never have its value."""

ORDER = "x-quarterdeck-order"
"""The keyword of a schema that names its parameters in the order in which forms ask for them. JSON objects have none;
what is given in another order than the alphabet's gets the keyword."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Overridable(StrEnum):
    """What whoever starts a session may give instead of what the template says."""

    TITLE = "TITLE"
    LABELS = "LABELS"
    VISIBILITY = "VISIBILITY"
    MODEL = "MODEL"
    RUNTIME = "RUNTIME"
    SYSTEM_PROMPT = "SYSTEM_PROMPT"
    PERMISSION_MODE = "PERMISSION_MODE"
    OPTIONS = "OPTIONS"
    MCP_SERVERS = "MCP_SERVERS"
    MESSAGES = "MESSAGES"
    BUDGET = "BUDGET"


class TemplateServer(_Strict):
    """An MCP server of the organisation, by its name, with the tools that sessions may call; None is all of them."""

    server: str = Field(min_length=1, max_length=100)
    tools: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] | None = Field(None, max_length=500)


class SeedFile(_Strict):
    """A file that is written into a new session's directory."""

    path: str = Field(min_length=1, max_length=400)
    content: str = Field(max_length=LARGEST_SPEC)
    encoding: Literal["utf-8", "base64"] = "utf-8"
    executable: bool = False

    @field_validator("path")
    @classmethod
    def _path(cls, path: str) -> str:
        return _inside(path)


class SeedRepository(_Strict):
    """A git repository at a revision."""

    url: str = Field(min_length=1, max_length=2000)
    revision: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    path: str = "."

    @field_validator("path")
    @classmethod
    def _path(cls, path: str) -> str:
        return _inside(path)


class SeedArchive(_Strict):
    """A tar or zip archive, with the digest that it must have."""

    url: str = Field(min_length=1, max_length=2000)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    path: str = "."

    @field_validator("path")
    @classmethod
    def _path(cls, path: str) -> str:
        return _inside(path)


class Seed(_Strict):
    """What is in the working directory before anything runs: the repository and the archive first, then the files."""

    repository: SeedRepository | None = None
    archive: SeedArchive | None = None
    files: tuple[SeedFile, ...] = Field((), max_length=200)

    @model_validator(mode="after")
    def _each_path_once(self) -> Seed:
        if len({file.path for file in self.files}) != len(self.files):
            raise ValueError("each path may be there only once")
        return self


class Budget(_Strict):
    """What a session may use."""

    max_cost_usd: Decimal | None = Field(None, gt=0, le=100_000)
    max_turns: int | None = Field(None, ge=1, le=1000)


class TestCheck(_Strict):
    """What a test run must bring about, beside ending well."""

    __test__ = False

    answer_contains: str | None = Field(None, max_length=10_000)
    """Text that the last message of the agent must contain."""
    tool_called: str | None = Field(None, max_length=200)
    """A tool that must have been called, and have succeeded."""
    file_exists: str | None = Field(None, max_length=400)
    """A file that must be in the working directory afterwards."""

    @model_validator(mode="after")
    def _one(self) -> TestCheck:
        if sum(value is not None for value in (self.answer_contains, self.tool_called, self.file_exists)) != 1:
            raise ValueError("must say exactly one of answerContains, toolCalled, fileExists")
        return self


class TestPlan(_Strict):
    """How the template is tested: with these parameters, the template's own messages and then these, and these
    checks."""

    __test__ = False

    runtime: str | None = Field(None, max_length=40)
    """The runtime to test with, where it is another than the template's: `script` needs no model and costs nothing."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    messages: tuple[Annotated[str, Field(min_length=1, max_length=256 * 1024)], ...] = Field((), max_length=20)
    checks: tuple[TestCheck, ...] = Field((), max_length=50)
    max_cost_usd: Decimal | None = Field(None, gt=0, le=1000)
    timeout_seconds: int = Field(300, ge=5, le=3600)


class TemplateSpec(_Strict):
    """The configuration that sessions are started with."""

    runtime: str | None = Field(None, max_length=40)
    model: str | None = Field(None, min_length=1, max_length=200)
    permission_mode: PermissionMode = PermissionMode.DEFAULT
    system_prompt: str | None = Field(None, max_length=256 * 1024)
    parameters: dict[str, Any] = Field(default_factory=dict)
    """A JSON Schema (2020-12) of an object: the parameters that `{{ name }}` stands for in prompt, messages, title and
    labels. services.templates.parameters checks it."""
    mcp_servers: tuple[TemplateServer, ...] = Field((), max_length=50)
    options: SessionOptions = SessionOptions()
    approval_rules: tuple[ApprovalRule, ...] = Field((), max_length=200)
    messages: tuple[Annotated[str, Field(min_length=1, max_length=256 * 1024)], ...] = Field((), max_length=20)
    playbook: str | None = Field(None, min_length=1, max_length=256 * 1024)
    """What is sent instead of the messages where the runtime is `script`, which has no model to talk to: a template
    that has both works with a model and without one."""
    seed: Seed = Seed()
    budget: Budget = Budget()
    title: str | None = Field(None, max_length=200)
    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    visibility: Visibility | None = None
    overridable: tuple[Overridable, ...] = ()
    test: TestPlan = TestPlan()

    @field_validator("mcp_servers")
    @classmethod
    def _each_server_once(cls, servers: tuple[TemplateServer, ...]) -> tuple[TemplateServer, ...]:
        if len({server.server for server in servers}) != len(servers):
            raise ValueError("each server may be there only once")
        return servers

    @field_validator("overridable")
    @classmethod
    def _sorted(cls, overridable: tuple[Overridable, ...]) -> tuple[Overridable, ...]:
        return tuple(sorted(set(overridable)))

    def stored(self) -> dict[str, Any]:
        """The JSON to store: only what differs from the defaults, in camelCase as in files."""
        return self.model_dump(mode="json", exclude_defaults=True, by_alias=True)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON (RFC 8785), hexadecimal: what tests and versions are known by."""
        return hashlib.sha256(rfc8785.dumps(self.stored())).hexdigest()


def check_spec(given: dict[str, Any], *, field: str = "spec") -> TemplateSpec:
    """A specification from a client's input or a file; BadInput with all problems at once, each with its place."""
    check_storable(given, field=field)
    try:
        spec = TemplateSpec.model_validate(given | {"parameters": _ordered(given.get("parameters") or {})})
        size = len(rfc8785.dumps(spec.stored()))
    except ValidationError as error:
        raise BadInput.of_fields(
            [
                (
                    ".".join(
                        [field, *(to_camel(part) if isinstance(part, str) else str(part) for part in item["loc"])]
                    ),
                    item["msg"].removeprefix("Value error, "),
                )
                for item in error.errors()
            ]
        ) from None
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise BadInput(f"It cannot be written as canonical JSON: {error}", field=field) from None
    if size > LARGEST_SPEC:
        raise TooLarge(
            f"A template has at most {LARGEST_SPEC} bytes. Put large files into a repository or an archive.",
            field=field,
        )
    return spec


def load_spec(stored: dict[str, Any]) -> TemplateSpec:
    """A specification as it was stored."""
    return TemplateSpec.model_validate(stored)


def _ordered(schema: Any) -> Any:
    """The schema with the order of its parameters said."""
    names = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(names, dict) or ORDER in schema or list(names) == sorted(names):
        return schema
    return schema | {ORDER: list(names)}


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise ValueError("must be a relative path inside the session's directory")
    return str(pure)
