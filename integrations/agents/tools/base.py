"""What a tool is, whoever runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.settings import Settings
from integrations.agents.base import ToolResult
from integrations.mcp.results import cut_text
from integrations.sandbox.base import Sandbox


class ToolError(Exception):
    """A tool cannot do what it was asked; the message is for whoever asked, model or person."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where built-in tools work: a session's directory, and how its programs are confined."""

    root: Path
    settings: Settings
    sandbox: Sandbox
    environment: Mapping[str, str] = field(repr=False)
    shell_network: bool = True


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of a session. `name` is `server.tool`, or a built-in's name; `server` is None for built-ins."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: Mapping[str, Any]
    run: Callable[[Mapping[str, Any]], Awaitable[ToolResult]]
    server: str | None = None


READ_ONLY = {"readOnlyHint": True, "destructiveHint": False, "openWorldHint": False}
WRITES = {"readOnlyHint": False, "destructiveHint": True, "openWorldHint": False}


def schema(required: list[str], **properties: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON Schema for an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def text_result(text: str, max_bytes: int, *, structured: Any = None, is_error: bool = False) -> ToolResult:
    """A result of one text, cut to `max_bytes`."""
    kept = cut_text(text, max_bytes)
    return ToolResult(
        content=[{"type": "text", "text": kept}],
        structured=structured,
        is_error=is_error,
        truncated=len(kept) < len(text),
        error_kind="tool" if is_error else None,
    )
