"""Built-in tools: what they do, and that they stay in the session's directory."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.settings import Settings
from integrations.agents.base import Decision, ToolCall, ToolResult, Verdict
from integrations.agents.tools.base import Tool
from integrations.agents.tools.toolbox import Granted, Refused, Toolbox, Undecided, model_names, result_text
from integrations.mcp.servers import ServerPool
from integrations.sandbox.base import Sandbox
from tests.fakes.hooks import RecordingHooks
from tests.integrations.agents.conftest import MakeConfig


async def call(toolbox: Toolbox, name: str, **arguments: Any) -> ToolResult:
    answer = await toolbox.request(ToolCall(uuid4().hex, name, arguments))
    return await toolbox.run(answer) if isinstance(answer, Granted) else refused(answer)


def refused(answer: object) -> ToolResult:
    assert isinstance(answer, Refused)
    return answer.result


@pytest.mark.anyio
async def test_files(toolbox: Toolbox, workspace: Path) -> None:
    assert not (await call(toolbox, "write_file", path="a/b.txt", content="one\ntwo\nthree\n")).is_error
    assert result_text(await call(toolbox, "read_file", path="a/b.txt", first_line=2, lines=1)) == "two\n"
    edited = await call(toolbox, "edit_file", path="a/b.txt", old_text="two", new_text="2")
    assert not edited.is_error
    assert (workspace / "a" / "b.txt").read_text() == "one\n2\nthree\n"
    assert "does not occur" in result_text(await call(toolbox, "edit_file", path="a/b.txt", old_text="x", new_text="y"))
    assert "times" in result_text(await call(toolbox, "edit_file", path="a/b.txt", old_text="e", new_text="y"))
    assert not (await call(toolbox, "edit_file", path="a/b.txt", old_text="e", new_text="E", replace_all=True)).is_error
    assert result_text(await call(toolbox, "list_files")) == "a/"
    assert result_text(await call(toolbox, "list_files", recursive=True)) == "a/\na/b.txt 12"
    assert result_text(await call(toolbox, "list_files", path="a", pattern="*.py")) == "There is nothing."


@pytest.mark.anyio
async def test_files_outside_and_odd_ones(toolbox: Toolbox, workspace: Path, settings: Settings) -> None:
    (settings.data / "key").write_text("sealing key")
    (workspace / "link").symlink_to(settings.data / "key")
    (workspace / "folder-link").symlink_to(settings.data)
    (workspace / "binary").write_bytes(b"\xff\xfe\x00")
    for arguments in ({"path": "../../key"}, {"path": str(settings.data / "key")}, {"path": "link"}):
        answer = await call(toolbox, "read_file", **arguments)
        assert answer.is_error
        assert "leads out" in result_text(answer)
        assert (await call(toolbox, "write_file", content="x", **arguments)).is_error
    assert "key" not in result_text(await call(toolbox, "list_files", recursive=True))
    assert (await call(toolbox, "list_files", path="folder-link")).is_error
    assert "sealing" not in result_text(await call(toolbox, "search_files", pattern="sealing"))
    assert (settings.data / "key").read_text() == "sealing key"
    assert "not a text file" in result_text(await call(toolbox, "read_file", path="binary"))
    assert "does not exist" in result_text(await call(toolbox, "read_file", path="none"))


@pytest.mark.anyio
async def test_results_are_cut(toolbox: Toolbox, workspace: Path, settings: Settings) -> None:
    (workspace / "large").write_text("x" * (settings.max_tool_result_bytes + 10))
    for answer in (
        await call(toolbox, "read_file", path="large"),
        await call(toolbox, "shell", command="cat large"),
        await call(toolbox, "search_files", pattern="x"),
    ):
        assert answer.truncated
        assert not answer.is_error
        assert len(result_text(answer)) <= settings.max_tool_result_bytes + 64


@pytest.mark.anyio
async def test_a_full_disk_is_told_and_loses_nothing(toolbox: Toolbox, workspace: Path) -> None:
    full = Path("/dev/full")
    if os.getuid() != 0 or not full.exists():
        pytest.skip("needs root to mount a small filesystem")
    target = workspace / "small"
    target.mkdir()
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(target))
    if await mount.wait() != 0:
        pytest.skip("this machine mounts no tmpfs")
    try:
        (target / "kept").write_text("old")
        answer = await call(toolbox, "write_file", path="small/kept", content="x" * 200_000)
        assert answer.is_error
        assert "disk is full" in result_text(answer)
        assert (target / "kept").read_text() == "old"
        assert [path.name for path in target.iterdir()] == ["kept"]
    finally:
        await (await asyncio.create_subprocess_exec("umount", str(target))).wait()


@pytest.mark.anyio
async def test_search(toolbox: Toolbox, workspace: Path) -> None:
    (workspace / "a.py").write_text("import os\nprint('Hello')\n")
    (workspace / "b.txt").write_text("hello\n")
    assert result_text(await call(toolbox, "search_files", pattern="print|none")) == "./a.py:2:print('Hello')\n"
    both = result_text(await call(toolbox, "search_files", pattern="hello", ignore_case=True))
    assert sorted(both.splitlines()) == ["./a.py:2:print('Hello')", "./b.txt:1:hello"]
    assert "a.py" in result_text(await call(toolbox, "search_files", pattern="H", files="*.py"))
    assert result_text(await call(toolbox, "search_files", pattern="--version")) == "Nothing found."
    assert (await call(toolbox, "search_files", pattern="(")).is_error


@pytest.mark.anyio
async def test_shell(toolbox: Toolbox, workspace: Path) -> None:
    answer = await call(toolbox, "shell", command="pwd; echo oops >&2; exit 3")
    assert result_text(answer) == f"{workspace}\noops\n[exit status 3]"
    assert (answer.is_error, answer.structured) == (True, {"exitCode": 3})
    assert (await call(toolbox, "shell", command="true")).structured == {"exitCode": 0}


@pytest.mark.anyio
async def test_shell_is_killed_with_all_it_started(toolbox: Toolbox, workspace: Path) -> None:
    answer = await call(toolbox, "shell", command="(sleep 1.5; touch late) & sleep 600", timeout_seconds=0.5)
    assert answer.error_kind == "timeout"
    answer = await call(toolbox, "shell", command="(sleep 1.5; touch late) & echo quick")
    assert result_text(answer) == "quick\n"
    await asyncio.sleep(2)
    assert not (workspace / "late").exists()


@pytest.mark.anyio
async def test_hooks_are_asked_once_and_see_every_result(
    config: MakeConfig, settings: Settings, pool: ServerPool, sandbox: Sandbox
) -> None:
    verdicts = {"read_file": Verdict.DENY, "write_file": Verdict.ASK}
    hooks = RecordingHooks(lambda call: Decision(verdicts.get(call.name, Verdict.ALLOW), "because"))
    toolbox = Toolbox(config(), hooks, servers=pool, sandbox=sandbox, settings=settings)
    denied = refused(await toolbox.request(ToolCall("1", "read_file", {"path": "a"})))
    assert "because" in result_text(denied)
    write = ToolCall("2", "write_file", {"path": "a", "content": "b"})
    for _ in range(3):
        assert isinstance(await toolbox.request(write), Undecided)
    edited = toolbox.decided(write, Decision(Verdict.ALLOW, arguments={"path": "a", "content": 7}))
    assert isinstance(edited, Granted)
    assert "is not of type 'string'" in result_text(await toolbox.run(edited))
    assert [call.id for call in hooks.before] == ["1", "2"]
    assert [call.id for call, _ in hooks.after] == ["2"]


@pytest.mark.anyio
async def test_arguments_that_are_too_large(
    config: MakeConfig, settings: Settings, pool: ServerPool, sandbox: Sandbox
) -> None:
    hooks = RecordingHooks()
    toolbox = Toolbox(config(), hooks, servers=pool, sandbox=sandbox, settings=settings)
    content = "x" * settings.max_arguments_bytes
    assert "at most" in result_text(await call(toolbox, "write_file", path="a", content=content))
    assert (len(hooks.rejected), hooks.before) == (1, [])


def test_names_for_models_are_valid_and_reversible() -> None:
    def tool(name: str) -> Tool:
        return Tool(name, "", {}, {}, lambda arguments: asyncio.sleep(0, ToolResult([])))

    names = ["shell", "git.log", "git.lo.g", "git.lo_g", "a.b/c", "x." + "long" * 30, "x." + "long" * 31]
    named = model_names([tool(name) for name in names])
    assert sorted(found.name for found in named.values()) == sorted(names)
    assert named["git__log"].name == "git.log"
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in named)
