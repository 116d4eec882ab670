"""An MCP server that behaves, or misbehaves, as its tools and options ask for.

`python mcp_server.py` speaks stdio; `--http PORT` streamable HTTP on a loopback port. `--start hang`,
`--start die` and `--start nonsense` never get as far as speaking MCP.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import Any

from mcp.server import MCPServer
from mcp_types import ToolAnnotations

# The SDK points stdout elsewhere while it serves; misbehaviour needs the real one.
STDOUT = os.dup(1)

server = MCPServer("quarterdeck-test", version="1.2.3")
calls = {"count": 0}
memory: dict[str, str] = {}


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def echo(text: str) -> str:
    """Give the text back."""
    calls["count"] += 1
    return text


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def count() -> int:
    """How often `echo` was called in this process."""
    return calls["count"]


@server.tool()
def remember(key: str, value: str) -> str:
    """Keep a value for as long as this process lives."""
    memory[key] = value
    return "remembered"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def recall(key: str) -> str:
    """Give a kept value back."""
    return memory.get(key, "nothing")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def whoami() -> dict[str, Any]:
    """What this process sees of the machine."""
    return {
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "home": os.environ.get("HOME"),
        "environment": sorted(os.environ),
        "root": sorted(os.listdir("/")),
    }


@server.tool()
def fail(message: str) -> str:
    """Raise an error."""
    raise ValueError(message)


@server.tool(annotations=ToolAnnotations(destructive_hint=True))
def delete_everything(path: str) -> str:
    """Pretend to delete something."""
    return f"deleted {path}"


@server.tool()
def die(code: int = 3) -> str:
    """End the process in the middle of the call."""
    sys.stderr.write("about to die\n")
    sys.stderr.flush()
    os._exit(code)


@server.tool()
async def sleep(seconds: float) -> str:
    """Answer late."""
    await asyncio.sleep(seconds)
    return f"slept {seconds}"


@server.tool()
def hang() -> str:
    """Never answer, and listen to nobody: not to cancellation, nor to polite signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    while True:
        time.sleep(3600)


@server.tool()
def spawn_child() -> int:
    """Start a process that outlives the call, and return its id (inside the sandbox)."""
    return subprocess.Popen(["sleep", "3599"]).pid


@server.tool()
def huge(size: int) -> str:
    """A text of that many characters."""
    return "x" * size


@server.tool()
def nonsense(lines: int) -> str:
    """Write lines to stdout that are not MCP."""
    for number in range(lines):
        os.write(STDOUT, f"line {number} is not JSON-RPC\n".encode())
    time.sleep(3600)
    return "unreachable"


@server.tool()
def flood() -> str:
    """Write to stdout without end and without a line break."""
    while True:
        os.write(STDOUT, b"x" * 65536)


@server.tool()
def flood_notifications() -> str:
    """Send valid notifications without end."""
    line = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n'
    while True:
        os.write(STDOUT, line * 100)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--http", type=int)
    options.add_argument("--start", choices=["hang", "die", "nonsense"])
    chosen = options.parse_args()
    if chosen.start == "hang":
        sys.stderr.write("thinking\n")
        sys.stderr.flush()
        time.sleep(3600)
    if chosen.start == "die":
        sys.exit("no configuration found")
    if chosen.start == "nonsense":
        os.write(STDOUT, b"Welcome to the server!\n" * 100)
        time.sleep(3600)
    if chosen.http is not None:
        server.run("streamable-http", host="127.0.0.1", port=chosen.http)
    else:
        server.run()


if __name__ == "__main__":
    main()
