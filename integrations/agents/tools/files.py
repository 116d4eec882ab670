"""Built-in tools for files in the session's working directory; they cannot leave it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from functools import partial
from typing import Any

from core import beneath
from core.errors import BadInput
from integrations.agents.base import ToolResult
from integrations.agents.tools.base import (
    READ_ONLY,
    WRITES,
    Tool,
    ToolError,
    Workspace,
    schema,
    text_result,
)

_MOST_ENTRIES = 2000
_PATH = {
    "type": "string",
    "minLength": 1,
    "description": "Path relative to the working directory.",
}


def file_tools(workspace: Workspace) -> list[Tool]:
    """read_file, write_file, edit_file and list_files."""

    def tool(
        name: str,
        description: str,
        work: Callable[..., ToolResult],
        input_schema: Mapping[str, Any],
        annotations: Mapping[str, Any],
    ) -> Tool:
        return Tool(name, description, input_schema, annotations, partial(_run, work, workspace))

    return [
        tool(
            "read_file",
            "Read a text file. Large files are read in parts by line numbers.",
            _read,
            schema(
                ["path"],
                path=_PATH,
                first_line={
                    "type": "integer",
                    "minimum": 1,
                    "description": "First line to read, from 1.",
                },
                lines={
                    "type": "integer",
                    "minimum": 1,
                    "description": "How many lines to read; default all.",
                },
            ),
            READ_ONLY,
        ),
        tool(
            "write_file",
            "Write a text file, replacing what was there; folders above it are made.",
            _write,
            schema(
                ["path", "content"],
                path=_PATH,
                content={"type": "string", "description": "The whole new content."},
            ),
            WRITES,
        ),
        tool(
            "edit_file",
            "Replace a text in a file. The old text must occur exactly once, unless all occurrences are replaced.",
            _edit,
            schema(
                ["path", "old_text", "new_text"],
                path=_PATH,
                old_text={
                    "type": "string",
                    "minLength": 1,
                    "description": "Text to replace, exactly as in the file.",
                },
                new_text={"type": "string", "description": "Text to put there."},
                replace_all={
                    "type": "boolean",
                    "description": "Replace every occurrence; default false.",
                },
            ),
            WRITES,
        ),
        tool(
            "list_files",
            "List files and folders with their sizes in bytes; folders end with a slash.",
            _list,
            schema(
                [],
                path=_PATH | {"description": "Folder to list; default the working directory."},
                recursive={
                    "type": "boolean",
                    "description": "List folders below it too; default false.",
                },
                pattern={
                    "type": "string",
                    "description": "List only names that match, such as *.py.",
                },
            ),
            READ_ONLY,
        ),
    ]


async def _run(work: Callable[..., ToolResult], workspace: Workspace, arguments: Mapping[str, Any]) -> ToolResult:
    try:
        return await asyncio.to_thread(work, workspace, **arguments)
    except BadInput as error:
        raise ToolError(error.message) from error
    except OSError as error:
        raise ToolError(_words(error, str(arguments.get("path", ".")))) from error


def _words(error: OSError, path: str) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"{path} does not exist."
        case errno.ENOSPC | errno.EDQUOT:
            return f"{path} was not written: the disk is full. What was there before is unchanged."
        case errno.EISDIR:
            return f"{path} is a folder."
        case errno.ENOTDIR:
            return f"{path}: a part of the path is not a folder."
        case _:
            return f"{path}: {error.strerror or error}."


def _text(workspace: Workspace, path: str) -> str:
    content = beneath.read_bytes(workspace.root, path, max_bytes=workspace.settings.max_file_bytes)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ToolError(f"{path} is not a text file in UTF-8 ({len(content)} bytes).") from None


def _save(workspace: Workspace, path: str, text: str) -> None:
    content = text.encode()
    limit = workspace.settings.max_file_bytes
    if len(content) > limit:
        raise ToolError(f"{path} would have {len(content)} bytes; at most {limit} can be written.")
    beneath.write_bytes(workspace.root, path, content)


def _read(workspace: Workspace, path: str, first_line: int = 1, lines: int | None = None) -> ToolResult:
    text = _text(workspace, path)
    if first_line > 1 or lines is not None:
        kept = text.splitlines(keepends=True)[first_line - 1 :]
        text = "".join(kept if lines is None else kept[:lines])
    return text_result(text, workspace.settings.max_tool_result_bytes)


def _write(workspace: Workspace, path: str, content: str) -> ToolResult:
    _save(workspace, path, content)
    return _said(workspace, f"Wrote {len(content.encode())} bytes to {path}.")


def _edit(
    workspace: Workspace,
    path: str,
    old_text: str,
    new_text: str,
    replace_all: bool = False,
) -> ToolResult:
    text = _text(workspace, path)
    found = text.count(old_text)
    if found == 0:
        raise ToolError(f"The old text does not occur in {path}.")
    if found > 1 and not replace_all:
        raise ToolError(f"The old text occurs {found} times in {path}; give more of it, or set replace_all.")
    _save(workspace, path, text.replace(old_text, new_text))
    return _said(workspace, f"Replaced {found} occurrence{'s' if found > 1 else ''} in {path}.")


def _list(workspace: Workspace, path: str = ".", recursive: bool = False, pattern: str = "*") -> ToolResult:
    entries: list[str] = []
    with beneath.opened(workspace.root, path, os.O_RDONLY | os.O_DIRECTORY) as top:
        for folder, folders, files, descriptor in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            folders.sort()
            for name in sorted([*folders, *files]):
                if fnmatch(name, pattern):
                    shown = os.path.normpath(os.path.join(folder, name))
                    entries.append(_entry(descriptor, name, shown, name in folders))
            if not recursive or len(entries) >= _MOST_ENTRIES:
                break
    more = len(entries) - _MOST_ENTRIES
    if more > 0:
        entries = [
            *entries[:_MOST_ENTRIES],
            f"… and {more} more or deeper ones; name a folder or a pattern.",
        ]
    return _said(workspace, "\n".join(entries) or "There is nothing.")


def _entry(descriptor: int, name: str, shown: str, is_folder: bool) -> str:
    if is_folder:
        return shown + "/"
    try:
        return f"{shown} {os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size}"
    except OSError:
        return shown


def _said(workspace: Workspace, text: str) -> ToolResult:
    return text_result(text, workspace.settings.max_tool_result_bytes)
