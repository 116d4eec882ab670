"""The contract for systems that take alerts: webhooks and Alertmanager now, paging services by the same door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


class NotTaken(Exception):
    """The receiver did not take it. The message says why, without secrets."""

    def __init__(self, message: str, *, status: int | None = None, gone: bool = False) -> None:
        super().__init__(message)
        self.status = status
        """What it answered by HTTP, if it did."""
        self.gone = gone
        """It wants nothing ever again: HTTP's 410."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where alerts go, with its secrets."""

    url: str
    secret: str | None = None
    """A webhook's signing secret (`whsec_…`), or what an Alertmanager wants as Authorization."""
    former_secret: str | None = None
    """The signing secret of before, while it still holds."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, as it is told now."""

    id: str
    """The same at every attempt, so that a repetition can be recognised."""
    type: str
    """`incident.firing`, `incident.still_firing`, `incident.resolved`, `monitor.test`."""
    at: datetime
    """When what it tells happened."""
    title: str
    summary: str
    labels: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime | None
    """None while it lasts."""
    link: str
    data: Mapping[str, Any]
    """All that there is to say, as JSON."""


class AlertSender(Protocol):
    """One kind of channel."""

    async def send(self, target: Target, alert: Alert) -> int:
        """Returns the status that the receiver answered, once it has taken the alert. Raises NotTaken."""
        ...
