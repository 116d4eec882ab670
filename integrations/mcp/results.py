"""From what an MCP server answers to what Quarterdeck keeps: bounded results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mcp_types import CallToolResult

from integrations.agents.base import ToolResult

ErrorKind = Literal["tool", "timeout", "server_died", "protocol", "cancelled", "too_large"]


def to_result(answer: CallToolResult, *, max_bytes: int) -> ToolResult:
    """The answer with content and structured content of at most `max_bytes` together."""
    blocks = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in answer.content]
    content, cut, left = cut_content(blocks, max_bytes)
    structured = answer.structured_content
    if structured is not None and json_size(structured) > max(left, 0):
        # Servers repeat structured content as text; what does not fit beside the text is dropped, not mangled.
        structured, cut = None, True
    return ToolResult(
        content=content,
        structured=structured,
        is_error=answer.is_error,
        truncated=cut,
        error_kind="tool" if answer.is_error else None,
    )


def cut_content(blocks: Sequence[Mapping[str, Any]], max_bytes: int) -> tuple[list[Mapping[str, Any]], bool, int]:
    """The blocks cut to `max_bytes` of JSON, whether anything was left out, and the bytes that are left.

    Text is cut at its end; other blocks that do not fit are replaced by a line that says so.
    """
    kept: list[Mapping[str, Any]] = []
    left, cut = max_bytes, False
    for block in blocks:
        size = json_size(block)
        if size <= left:
            kept.append(block)
            left -= size
            continue
        cut = True
        if block.get("type") == "text" and left > 0:
            kept.append({"type": "text", "text": cut_text(str(block["text"]), left)})
            left = 0
        elif block.get("type") != "text":
            kept.append(
                {
                    "type": "text",
                    "text": f"[{block.get('type')} of {size} bytes left out]",
                }
            )
    return kept, cut, left


def cut_text(text: str, max_bytes: int) -> str:
    """The beginning of a text, at most `max_bytes` of UTF-8."""
    return text.encode()[: max(max_bytes, 0)].decode(errors="ignore")


def json_size(value: Any) -> int:
    """Bytes of a value as compact JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def failure(kind: ErrorKind, message: str) -> ToolResult:
    """A result that is an error of the given kind."""
    return ToolResult(content=[{"type": "text", "text": message}], is_error=True, error_kind=kind)
