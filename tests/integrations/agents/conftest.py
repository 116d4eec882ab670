"""Fixtures for runtimes: configurations, toolboxes, and what a segment yields."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.settings import Settings
from integrations.agents.base import RunEnded, RuntimeConfig, RuntimeEvent, TextDelta, TextEnded, TextStarted
from integrations.agents.tools.toolbox import Toolbox
from integrations.mcp.servers import ServerPool
from integrations.sandbox.base import Sandbox
from tests.fakes.hooks import RecordingHooks

MakeConfig = Callable[..., RuntimeConfig]


@pytest.fixture
def config(workspace: Path) -> MakeConfig:
    def make(**fields: Any) -> RuntimeConfig:
        given: dict[str, Any] = {
            "organization_id": uuid4(),
            "session_id": uuid4(),
            "working_directory": workspace,
            "model": None,
            "system_prompt": None,
            "permission_mode": "default",
            "allowed_tools": [],
            "disallowed_tools": [],
            "max_turns": None,
            "max_budget_usd": None,
            "mcp_servers": [],
            **fields,
        }
        return RuntimeConfig(**given)

    return make


@pytest.fixture
async def toolbox(
    config: MakeConfig, settings: Settings, pool: ServerPool, each_sandbox: Sandbox
) -> AsyncIterator[Toolbox]:
    opened = Toolbox(config(), RecordingHooks(), servers=pool, sandbox=each_sandbox, settings=settings)
    yield opened
    await opened.close()


@dataclass
class Segment:
    """What one segment yielded."""

    events: list[RuntimeEvent]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def end(self) -> RunEnded:
        assert isinstance(self.events[-1], RunEnded)
        return self.events[-1]


async def segment(events: AsyncIterator[RuntimeEvent]) -> Segment:
    """Read a segment to its end, and hold that it is well formed."""
    seen = [event async for event in events]
    assert [isinstance(event, RunEnded) for event in seen].index(True) == len(seen) - 1
    open_messages: set[str] = set()
    for event in seen:
        match event:
            case TextStarted(message_id):
                assert message_id not in open_messages
                open_messages.add(message_id)
            case TextDelta(message_id, text):
                assert message_id in open_messages
                assert text
            case TextEnded(message_id):
                open_messages.remove(message_id)
    assert not open_messages
    return Segment(seen)
