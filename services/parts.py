"""The parts this process was put together from. app/wiring.py chooses them; services use them by their contracts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from core.bus import Bus
from core.crypto import Vault
from core.settings import Settings
from integrations.agents.base import McpServerSpec, Runtime
from integrations.alerts.base import AlertSender
from integrations.durable.base import RunQueue
from integrations.mcp.base import McpInspection
from integrations.notify.base import Notifier
from integrations.seeds.base import SeedFetcher


class InspectServer(Protocol):
    """Connects to a server, lists its tools, and ends it again; raises McpUnavailable, BadInput."""

    async def __call__(
        self, spec: McpServerSpec, *, organization_id: UUID, environment: Mapping[str, str]
    ) -> McpInspection: ...


class DrawChart(Protocol):
    """Draws a Vega-Lite specification as a PDF of one page; raises TooLarge, Unavailable."""

    async def __call__(self, spec: Mapping[str, Any]) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """One process's parts."""

    settings: Settings
    vault: Vault
    bus: Bus
    queue: RunQueue
    runtimes: Mapping[str, Runtime]
    default_runtime: str
    inspect_server: InspectServer
    seeds: SeedFetcher
    executor_id: str
    """This process's name in `runs.executor`."""
    draw_chart: DrawChart
    notifiers: Mapping[str, Notifier] = field(default_factory=dict)
    """By their names, those that are configured."""
    alert_senders: Mapping[str, AlertSender] = field(default_factory=dict)
    """By the kind of channel."""


_installed: Parts | None = None


def install(parts: Parts | None) -> None:
    """Make the parts known to the services of this process; None takes them away."""
    global _installed
    _installed = parts


def parts() -> Parts:
    """The parts of this process."""
    if _installed is None:
        raise RuntimeError("The process is not wired: call app.wiring first.")
    return _installed
