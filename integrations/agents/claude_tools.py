"""Tools between Claude Code and us: names, results, and our MCP servers as it sees them.

Claude Code does not start MCP servers itself: it reaches them through us, so that they are supervised and
bounded like everybody's, and their secrets are in no process that the agent's shell can look into.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from claude_agent_sdk import McpSdkServerConfig, SdkMcpTool, create_sdk_mcp_server

from integrations.agents.base import ToolResult
from integrations.agents.tools.base import READ_ONLY, WRITES, Tool
from integrations.mcp.results import cut_content, json_size

# Tools that need a terminal, or that act after the answer is over.
UNUSABLE = (
    "AskUserQuestion",
    "CronCreate",
    "CronDelete",
    "CronList",
    "EnterPlanMode",
    "EnterWorktree",
    "ExitPlanMode",
    "ExitWorktree",
    "ScheduleWakeup",
)
_READING = frozenset({"Read", "Glob", "Grep", "LS", "NotebookRead", "TodoWrite", "TaskList", "TaskGet", "ToolSearch"})


class BridgedTools:
    """The session's MCP tools, by the names Claude Code gives them (`mcp__server__tool`)."""

    def __init__(self, tools: list[Tool]) -> None:
        self._tools = {
            f"mcp__{_plain(tool.server)}__{_plain(tool.name.removeprefix(tool.server + '.'))}": tool
            for tool in tools
            if tool.server is not None
        }

    def servers(self) -> dict[str, McpSdkServerConfig]:
        """One server for each of ours, answered in this process."""
        grouped: dict[str, list[SdkMcpTool[Any]]] = {}
        for name, tool in self._tools.items():
            _, server, own = name.split("__", 2)
            grouped.setdefault(server, []).append(_sdk_tool(own, tool))
        return {server: create_sdk_mcp_server(server, tools=tools) for server, tools in grouped.items()}

    def name(self, claude: str) -> str:
        """Our name of a tool: `server.tool`, and Claude Code's own as they are."""
        tool = self._tools.get(claude)
        return claude if tool is None else tool.name

    def annotations(self, claude: str) -> Mapping[str, Any]:
        """What is known of a tool."""
        tool = self._tools.get(claude)
        if tool is not None:
            return tool.annotations
        return READ_ONLY if claude in _READING else WRITES


def to_result(response: Any, *, is_error: bool, duration_ms: int, max_bytes: int) -> ToolResult:
    """What Claude Code says a tool gave, as one of our results."""
    structured: Any = None
    if isinstance(response, list) and all(isinstance(block, dict) and "type" in block for block in response):
        blocks: list[Mapping[str, Any]] = response
    elif isinstance(response, str):
        blocks = [{"type": "text", "text": response}]
    else:
        structured = response
        blocks = [{"type": "text", "text": _text(response)}]
    content, cut, left = cut_content(blocks, max_bytes)
    if structured is not None and json_size(structured) > left:
        structured = None
    return ToolResult(
        content=content,
        structured=structured,
        is_error=is_error,
        truncated=cut,
        error_kind="tool" if is_error else None,
        duration_ms=duration_ms,
    )


def _text(response: Any) -> str:
    """The output of a command, for those that have one."""
    if isinstance(response, dict) and isinstance(response.get("stdout"), str):
        return "\n".join(part for part in (response["stdout"], response.get("stderr")) if part)
    return json.dumps(response, ensure_ascii=False)


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name).replace("__", "_")


def _sdk_tool(name: str, tool: Tool) -> SdkMcpTool[Any]:
    async def handle(arguments: dict[str, Any]) -> dict[str, Any]:
        result = await tool.run(arguments)
        return {"content": [dict(block) for block in result.content], "is_error": result.is_error}

    return SdkMcpTool(name=name, description=tool.description, input_schema=dict(tool.input_schema), handler=handle)
