"""A runtime that does what a test says: the test writes the segment, everything around it is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from integrations.agents.base import (
    Decision,
    Hooks,
    ModelCheck,
    Outcome,
    RunEnded,
    RuntimeConfig,
    RuntimeEvent,
    RuntimeSession,
    RuntimeState,
    Usage,
    UserInput,
)


@dataclass
class Strings:
    """One started runtime in the hands of the test. `text` is None in a segment that goes on after decisions."""

    hooks: Hooks
    text: str | None
    decisions: Mapping[str, Decision]
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)


Segment = Callable[[Strings], AsyncIterator[RuntimeEvent]]


class Puppet:
    """Runtime `puppet`. Give it a segment before a message is sent."""

    name = "puppet"

    def __init__(self, segment: Segment | None = None) -> None:
        self.segment: Segment = segment or just_finish
        self.closed = 0

    def available(self) -> tuple[bool, str]:
        return True, ""

    def validate(self, text: str) -> None:
        pass

    def validate_options(self, extra: Mapping[str, Any]) -> None:
        pass

    def built_in_tools(self) -> frozenset[str] | None:
        return None

    async def check_model(self, name: str | None) -> ModelCheck | None:
        return None

    def with_values(self, text: str, values: Mapping[str, Any]) -> str | None:
        return None

    async def start(self, config: RuntimeConfig, hooks: Hooks, state: RuntimeState | None) -> RuntimeSession:
        return _Session(self, hooks)

    async def fork(self, state: RuntimeState, keep_user_messages: int) -> RuntimeState | None:
        return RuntimeState(self.name, 1, str(keep_user_messages).encode())


class _Session:
    def __init__(self, puppet: Puppet, hooks: Hooks) -> None:
        self._puppet, self._hooks = puppet, hooks
        self._interrupted = asyncio.Event()

    def send(self, content: UserInput) -> AsyncIterator[RuntimeEvent]:
        return self._puppet.segment(Strings(self._hooks, content.text, {}, self._interrupted))

    def resume(self, decisions: Mapping[str, Decision]) -> AsyncIterator[RuntimeEvent]:
        return self._puppet.segment(Strings(self._hooks, None, decisions, self._interrupted))

    async def interrupt(self) -> None:
        self._interrupted.set()

    async def close(self) -> None:
        self._puppet.closed += 1


def end(outcome: Outcome = Outcome.FINISHED, **more: Any) -> RunEnded:
    return RunEnded(outcome, more.pop("state", None), more.pop("usage", Usage()), **more)


async def just_finish(strings: Strings) -> AsyncIterator[RuntimeEvent]:
    yield end()


async def wait_for(condition: Callable[[], Awaitable[Any]], within: float = 20.0) -> Any:
    """What the condition gives once it is true."""
    async with asyncio.timeout(within):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
        return found
