"""Claude Code as a confined program, with a private folder for its configuration and transcripts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from claude_agent_sdk import project_key_for_directory

from core.settings import Settings
from integrations.agents.base import RuntimeConfig
from integrations.sandbox.base import Sandbox

# The SDK hands the program the service's whole environment; these few of it come from the SDK itself.
_FROM_SDK = (
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_AGENT_SDK_VERSION",
    "CLAUDE_CODE_SDK_READS_SESSION_STATE",
    "TRACEPARENT",
    "TRACESTATE",
)
_LAUNCHER = f"""
import json, os, sys
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "command.json")) as file:
    command = json.load(file)
environment = {{name: os.environ[name] for name in {_FROM_SDK!r} if name in os.environ}}
environment.update(command["environment"])
# The key comes through a pipe, once: commands that the agent runs find it in no environment.
reading, writing = os.pipe()
os.write(writing, command["key"].encode())
os.close(writing)
os.set_inheritable(reading, True)
environment["CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR"] = str(reading)
with open(command["pid_file"], "w") as file:
    file.write(str(os.getpid()))
os.setsid()
os.execve(command["argv"][0], command["argv"] + sys.argv[1:], environment)
"""


class ClaudeProcess:
    """Everything one run of Claude Code needs on disk; `end` removes it and whatever still runs.

    `launcher` is what the SDK starts as its `cli_path`: it drops the inherited environment and enters the sandbox.
    """

    def __init__(self, config: RuntimeConfig, settings: Settings, sandbox: Sandbox) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="quarterdeck-claude-")).resolve()
        workspace = config.working_directory.resolve()
        home = self._folder / "home"
        self._project = home / "projects" / project_key_for_directory(workspace)
        self._project.mkdir(parents=True)
        wrapped = sandbox.wrap(
            [str(_program(settings))],
            workspace=workspace,
            environment={**config.environment, **_environment(settings, home)},
            network=True,
            home=home,
        )
        self._pid_file = self._folder / "pid"
        command = {
            "argv": list(wrapped.argv),
            "environment": dict(wrapped.environment),
            "key": settings.anthropic_api_key.get_secret_value() if settings.anthropic_api_key is not None else "",
            "pid_file": str(self._pid_file),
        }
        (self._folder / "command.json").write_text(json.dumps(command))
        (self._folder / "launch.py").write_text(_LAUNCHER)
        self.launcher = self._folder / "claude"
        self.launcher.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {shlex.quote(str(self._folder / "launch.py"))} "$@"\n'
        )
        self.launcher.chmod(0o700)

    def restore(self, transcripts: Mapping[str, str]) -> None:
        """Put the conversation so far where Claude Code looks for it."""
        for name, text in transcripts.items():
            path = self._project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def transcripts(self) -> dict[str, str]:
        """The conversation as Claude Code has written it down."""
        return {
            str(path.relative_to(self._project)): path.read_text()
            for path in sorted(self._project.rglob("*"))
            if path.is_file() and not path.is_symlink() and path.suffix in (".jsonl", ".json")
        }

    def kill(self) -> None:
        """Stop the program and all it started."""
        with suppress(FileNotFoundError, ValueError, ProcessLookupError, PermissionError):
            os.killpg(int(self._pid_file.read_text()), signal.SIGKILL)

    def end(self) -> None:
        """Kill what is left of the program and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _program(settings: Settings) -> Path:
    if settings.claude_cli_path is not None:
        return settings.claude_cli_path.resolve()
    import claude_agent_sdk

    return Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"


def _environment(settings: Settings, home: Path) -> dict[str, str]:
    environment = {
        "CLAUDE_CONFIG_DIR": str(home),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "3",
        "DISABLE_AUTOUPDATER": "1",
        # Every tool is offered at once, so that sessions behave alike whatever number of tools they have.
        "ENABLE_TOOL_SEARCH": "false",
        "IS_SANDBOX": "1",
    }
    if settings.anthropic_base_url is not None:
        environment["ANTHROPIC_BASE_URL"] = settings.anthropic_base_url
    return environment
