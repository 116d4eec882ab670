"""A session's tools, and the one way in which they are called.

Every runtime that runs tools itself goes through here: the name is looked up, the arguments are
checked, the service's hooks decide, the tool runs, the hooks see the result.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import QuarterdeckError
from core.processes import to_the_end
from core.settings import Settings
from integrations.agents.base import (
    Decision,
    Hooks,
    McpServerSpec,
    RuntimeConfig,
    ToolCall,
    ToolResult,
    Verdict,
)
from integrations.agents.tools.base import Tool, ToolError, Workspace
from integrations.agents.tools.files import file_tools
from integrations.agents.tools.programs import program_tools
from integrations.mcp.arguments import validate_arguments
from integrations.mcp.base import McpServer, McpServers, McpTool, McpUnavailable
from integrations.mcp.results import cut_text, failure, json_size
from integrations.sandbox.base import Sandbox

_MAX_DESCRIPTION_BYTES = 8192
_MODEL_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Granted:
    """The call may run, with the arguments it has now."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Refused:
    """The call does not run; `result` tells the model or script why."""

    result: ToolResult


@dataclass(frozen=True, slots=True)
class Undecided:
    """A human has to decide first: the segment ends as WAITING."""

    call: ToolCall


Answer = Granted | Refused | Undecided


def built_in_names(settings: Settings, sandbox: Sandbox) -> frozenset[str]:
    """The names of the tools that every session has."""
    nowhere = Workspace(Path("."), settings, sandbox, {})
    return frozenset(tool.name for tool in [*file_tools(nowhere), *program_tools(nowhere)])


class Toolbox:
    """The tools of one started session: built-ins, and those of its MCP servers as `server.tool`.

    Servers start when one of their tools is first looked for. `close` ends them.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        hooks: Hooks,
        *,
        servers: McpServers,
        sandbox: Sandbox,
        settings: Settings,
    ) -> None:
        self._config = config
        self._hooks = hooks
        self._servers = servers
        self._settings = settings
        workspace = Workspace(
            root=config.working_directory.resolve(),
            settings=settings,
            sandbox=sandbox,
            environment=config.environment,
            shell_network=bool(config.extra.get("shell_network", True)),
        )
        built_in = [*file_tools(workspace), *program_tools(workspace)]
        self._workspace = workspace
        self._built_in = {tool.name: tool for tool in built_in if self._allowed(tool.name)}
        self._specs = {spec.name: spec for spec in config.mcp_servers}
        self._leases: dict[str, McpServer] = {}
        self._undecided: dict[str, Undecided] = {}
        self.unavailable: dict[str, str] = {}
        """Servers whose tools cannot be had, and why; filled by `tools`."""

    async def tools(self) -> list[Tool]:
        """Every allowed tool. Servers that cannot be used are left out and named in `unavailable`."""
        listed = await asyncio.gather(*(self._tools_of(spec) for spec in self._specs.values()))
        return [*self._built_in.values(), *(tool for tools in listed for tool in tools)]

    async def find(self, name: str) -> Tool:
        """The tool of that name; raises ToolError where the session has none, saying which it has."""
        found = self._built_in.get(name)
        if found is not None:
            return found
        spec = next(
            (spec for server, spec in self._specs.items() if name.startswith(server + ".")),
            None,
        )
        offered = list(self._built_in.values()) if spec is None else await self._tools_of(spec)
        for tool in offered:
            if tool.name == name:
                return tool
        if spec is not None and spec.name in self.unavailable:
            raise ToolError(self.unavailable[spec.name])
        if not self._allowed(name):
            raise ToolError(f"The tool {name!r} is disallowed in this session.")
        names = ", ".join(
            sorted(
                [
                    *(tool.name for tool in offered),
                    *(f"{server}.…" for server in self._specs),
                ]
            )
        )
        raise ToolError(f"This session has no tool {name!r}. It has: {names or 'none'}.")

    async def request(self, call: ToolCall) -> Answer:
        """Whether a call may run; while a human decides, asking again does not ask the hooks again.

        Annotations of the tool are added to those the call has.
        """
        waiting = self._undecided.get(call.id)
        if waiting is not None:
            return waiting
        answer = await self._ask(call)
        if isinstance(answer, Undecided):
            self._undecided[call.id] = answer
        return answer

    def decided(self, call: ToolCall, decision: Decision) -> Answer:
        """What a decision means for a call; a human may have edited its arguments."""
        match decision.verdict:
            case Verdict.ALLOW:
                arguments = call.arguments if decision.arguments is None else decision.arguments
                answer: Answer = Granted(replace(call, arguments=arguments))
            case Verdict.DENY:
                answer = Refused(failure("tool", f"Denied: {decision.reason or 'no reason was given'}"))
            case Verdict.ASK:
                return Undecided(call)
        self._undecided.pop(call.id, None)
        return answer

    async def run(self, granted: Granted) -> ToolResult:
        """Run a call that may run, and give its result as the hooks leave it.

        Raises only CancelledError; the hooks have then seen the result `cancelled`.
        """
        call = granted.call
        started = time.perf_counter()

        def timed(result: ToolResult) -> ToolResult:
            return replace(result, duration_ms=round((time.perf_counter() - started) * 1000))

        try:
            result = await self._run(call)
        except asyncio.CancelledError:
            cancelled = timed(failure("cancelled", "Cancelled before it was done."))
            await to_the_end(_after(self._hooks, call, cancelled))
            raise
        return await self._hooks.after_tool(call, timed(result))

    async def close(self) -> None:
        """End the session's servers."""
        leases = list(self._leases.values())
        self._leases.clear()
        await to_the_end(self._release(leases))

    async def _ask(self, call: ToolCall) -> Answer:
        try:
            tool = await self.find(call.name)
            problem = self._problem(tool, call.arguments)
        except ToolError as error:
            problem = str(error)
        else:
            call = replace(call, annotations={**tool.annotations, **call.annotations})
        if problem is not None:
            result = failure("tool", problem)
            await self._hooks.rejected_tool(call, result)
            return Refused(result)
        return self.decided(call, await self._hooks.before_tool(call))

    async def _run(self, call: ToolCall) -> ToolResult:
        try:
            tool = await self.find(call.name)
            problem = self._problem(tool, call.arguments)
            if problem is not None:
                return failure("tool", problem)
            return await tool.run(call.arguments)
        except (ToolError, QuarterdeckError) as error:
            return failure("tool", str(error))

    def _problem(self, tool: Tool, arguments: Mapping[str, Any]) -> str | None:
        size, limit = json_size(dict(arguments)), self._settings.max_arguments_bytes
        if size > limit:
            return f"The arguments of {tool.name} have {size} bytes; at most {limit} are taken."
        problems = validate_arguments(tool.input_schema, arguments)
        return f"The arguments do not fit {tool.name}: " + "; ".join(map(str, problems)) if problems else None

    def _allowed(self, name: str) -> bool:
        # `allowed_tools` are those that need no decision: that is for the hooks.
        return not any(fnmatchcase(name, pattern) for pattern in self._config.disallowed_tools)

    async def _tools_of(self, spec: McpServerSpec) -> list[Tool]:
        try:
            listed = await (await self._lease(spec)).list_tools()
        except McpUnavailable as error:
            self.unavailable[spec.name] = error.message
            return []
        self.unavailable.pop(spec.name, None)
        allowed = spec.allowed_tools
        tools = [self._tool(spec, tool) for tool in listed if allowed is None or tool.name in allowed]
        return [tool for tool in tools if self._allowed(tool.name)]

    def _tool(self, spec: McpServerSpec, tool: McpTool) -> Tool:
        return Tool(
            name=f"{spec.name}.{tool.name}",
            description=cut_text(tool.description or tool.title or "", _MAX_DESCRIPTION_BYTES),
            input_schema=tool.input_schema,
            annotations=tool.annotations,
            run=partial(self._call_server, spec, tool.name),
            server=spec.name,
        )

    async def _call_server(self, spec: McpServerSpec, tool: str, arguments: Mapping[str, Any]) -> ToolResult:
        longest = min(spec.timeout_seconds, self._settings.tool_timeout_seconds)
        return await (await self._lease(spec)).call(tool, arguments, timeout_seconds=longest)

    async def _lease(self, spec: McpServerSpec) -> McpServer:
        if spec.name not in self._leases:
            self._leases[spec.name] = await self._servers.lease(
                spec,
                organization_id=self._config.organization_id,
                workspace=self._workspace.root,
                environment=self._config.environment,
            )
        return self._leases[spec.name]

    async def _release(self, leases: list[McpServer]) -> None:
        await asyncio.gather(*(self._servers.release(server) for server in leases))


def model_names(tools: list[Tool]) -> dict[str, Tool]:
    """The tools by names that model APIs take (`[a-zA-Z0-9_-]{1,64}`): `server.tool` is `server__tool`.

    Names that would be too long or equal end in a digest of the real one, so the mapping stays reversible.
    """
    named: dict[str, Tool] = {}
    for tool in tools:
        name = re.sub(r"[^a-zA-Z0-9_-]", "_", tool.name.replace(".", "__", 1))
        if len(name) > _MODEL_NAME_LENGTH or name in named:
            name = f"{name[: _MODEL_NAME_LENGTH - 9]}_{hashlib.sha256(tool.name.encode()).hexdigest()[:8]}"
        named[name] = tool
    return named


async def _after(hooks: Hooks, call: ToolCall, result: ToolResult) -> None:
    await hooks.after_tool(call, result)


def result_text(result: ToolResult) -> str:
    """The text of a result, other content named by its kind; structured content where there is nothing else."""
    parts = [
        str(block["text"]) if block.get("type") == "text" else f"[{block.get('type', 'content')}]"
        for block in result.content
    ]
    if not parts and result.structured is not None:
        return json.dumps(result.structured, ensure_ascii=False)
    return "\n".join(parts)
