"""Prometheus' Alertmanager, by its API version 2 (`POST /api/v2/alerts`, api/v2/openapi.yaml).

Clients say again and again what fires; what is not said again is taken for over after `endsAt`. So an alert that lasts
has an `endsAt` a little ahead, and one that is over has the time when it ended.
"""

from __future__ import annotations

from datetime import timedelta

import orjson

from core import clock
from integrations.alerts.base import Alert, Target
from integrations.alerts.posting import post

LASTS = timedelta(minutes=4)
"""How far ahead an alert that lasts ends. It is said again every minute."""


class AlertmanagerSender:
    """Sends alerts to an Alertmanager, or to what speaks as one."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def send(self, target: Target, alert: Alert) -> int:
        body = orjson.dumps(
            [
                {
                    "labels": alert.labels,
                    "annotations": {"summary": alert.title, "description": alert.summary},
                    "startsAt": alert.starts_at,
                    "endsAt": alert.ends_at or clock.now() + LASTS,
                    "generatorURL": alert.link,
                }
            ]
        )
        headers = {} if target.secret is None else {"Authorization": target.secret}
        url = f"{target.url.rstrip('/')}/api/v2/alerts"
        return await post(url, body, headers, allow_private=self._allow_private)
