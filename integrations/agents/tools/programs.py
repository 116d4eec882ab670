"""Built-in tools that run programs, inside the sandbox: the shell, and searching in files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from core import processes
from integrations.agents.base import ToolResult
from integrations.agents.tools.base import (
    READ_ONLY,
    Tool,
    ToolError,
    Workspace,
    schema,
    text_result,
)

_CHUNK = 65536


def program_tools(workspace: Workspace) -> list[Tool]:
    """search_files and shell."""
    return [
        Tool(
            "search_files",
            "Search text files for an extended regular expression (POSIX, as grep -E); gives file:line:text.",
            schema(
                ["pattern"],
                pattern={
                    "type": "string",
                    "minLength": 1,
                    "description": "What to search for.",
                },
                path={
                    "type": "string",
                    "minLength": 1,
                    "description": "File or folder; default everything.",
                },
                files={
                    "type": "string",
                    "description": "Search only files whose names match, such as *.py.",
                },
                ignore_case={
                    "type": "boolean",
                    "description": "Take upper and lower case as the same.",
                },
            ),
            READ_ONLY,
            partial(_search, workspace),
        ),
        Tool(
            "shell",
            "Run a command with sh in the working directory, confined to it; gives its output, both streams as one.",
            schema(
                ["command"],
                command={
                    "type": "string",
                    "minLength": 1,
                    "description": "The command line.",
                },
                timeout_seconds={
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "description": "Kill it after so long; at most, and by default, the service's tool timeout.",
                },
            ),
            {
                "readOnlyHint": False,
                "destructiveHint": True,
                "openWorldHint": workspace.shell_network,
            },
            partial(_shell, workspace),
        ),
    ]


async def _shell(workspace: Workspace, arguments: Mapping[str, Any]) -> ToolResult:
    longest = workspace.settings.tool_timeout_seconds
    code, output, truncated, expired = await _run(
        workspace,
        ["/bin/sh", "-c", str(arguments["command"])],
        timeout=min(float(arguments.get("timeout_seconds", longest)), longest),
        network=workspace.shell_network,
    )
    limit = workspace.settings.max_tool_result_bytes
    if expired is not None:
        said = text_result(f"{output}\n[killed after {expired:g} s]", limit, is_error=True)
        return replace(said, error_kind="timeout", truncated=truncated)
    note = "" if code == 0 else f"{'' if output.endswith(chr(10)) or not output else chr(10)}[exit status {code}]"
    result = text_result(output + note, limit + 64, structured={"exitCode": code}, is_error=code != 0)
    return replace(result, truncated=truncated)


async def _search(workspace: Workspace, arguments: Mapping[str, Any]) -> ToolResult:
    command = ["grep", "-rnIE"]
    if arguments.get("ignore_case"):
        command.append("-i")
    if "files" in arguments:
        command.append(f"--include={arguments['files']}")
    # grep runs confined: an expression that explodes is killed, and a path that leads out shows nothing.
    command += ["-e", str(arguments["pattern"]), "--", str(arguments.get("path", "."))]
    longest = workspace.settings.tool_timeout_seconds
    code, output, truncated, expired = await _run(workspace, command, timeout=longest, network=False)
    if expired is not None:
        raise ToolError(f"The search did not end within {longest:g} s; search a smaller part, or a simpler pattern.")
    if code == 1 and not output:
        output = "Nothing found."
    result = text_result(output, workspace.settings.max_tool_result_bytes, is_error=code > 1)
    return replace(result, truncated=truncated)


async def _run(
    workspace: Workspace, command: Sequence[str], *, timeout: float, network: bool
) -> tuple[int, str, bool, float | None]:
    """Exit status, output, whether it was cut, and the timeout where it expired. Kills all it started, always."""
    wrapped = workspace.sandbox.wrap(
        command,
        workspace=workspace.root,
        environment=workspace.environment,
        network=network,
    )
    try:
        process = await processes.spawn(
            wrapped.argv,
            environment=wrapped.environment,
            directory=wrapped.directory,
            merge_stderr=True,
        )
    except OSError as error:
        raise ToolError(f"The command cannot be started: {error.strerror}.") from error
    output = _Output(workspace.settings.max_tool_result_bytes)
    assert process.stdout is not None
    reading = asyncio.create_task(output.collect(process.stdout))
    expired = None
    try:
        async with asyncio.timeout(timeout):
            while process.returncode is None:
                await asyncio.wait([reading], timeout=0.02)
                if reading.done():
                    await asyncio.sleep(0.005)
        # What it left in the background may hold the pipe open for ever.
        await asyncio.wait([reading], timeout=0.5)
    except TimeoutError:
        expired = timeout
    finally:
        await processes.end(process)
        reading.cancel()
    code = process.returncode or 0
    return (code if code >= 0 else 128 - code), output.text(), output.truncated, expired


class _Output:
    """The beginning of what a program writes, up to `limit` bytes; the rest is read and dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.truncated = False

    async def collect(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(_CHUNK):
            room = self._limit - len(self._kept)
            self.truncated |= len(chunk) > room
            self._kept += chunk[:room]

    def text(self) -> str:
        return self._kept.decode(errors="replace")
