"""Webhooks, signed as the Standard Webhooks specification says (standardwebhooks.com, 1.0.0).

Headers: `webhook-id`, the same at every attempt; `webhook-timestamp`, of the attempt; `webhook-signature`, `v1,` and
the base64 of HMAC-SHA256 over `id.timestamp.body`, once for each secret that holds, with spaces between.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import orjson

from core import clock
from integrations.alerts.base import Alert, NotTaken, Target
from integrations.alerts.posting import post

PREFIX = "whsec_"


class WebhookSender:
    """Sends alerts to webhooks."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def send(self, target: Target, alert: Alert) -> int:
        body = orjson.dumps({"type": alert.type, "timestamp": alert.at, "data": alert.data})
        timestamp = str(int(clock.now().timestamp()))
        wanted = [secret for secret in (target.secret, target.former_secret) if secret is not None]
        if not wanted:
            raise NotTaken("The webhook has no secret to sign with.")
        headers = {
            "webhook-id": alert.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(signature(secret, alert.id, timestamp, body) for secret in wanted),
        }
        return await post(target.url, body, headers, allow_private=self._allow_private)


def signature(secret: str, id_: str, timestamp: str, body: bytes) -> str:
    """`v1,…` of one attempt."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise NotTaken("The webhook's secret is damaged: rotate it.") from None
    signed = hmac.new(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"
