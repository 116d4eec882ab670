"""Up to when figures are complete."""

from __future__ import annotations

from datetime import UTC, datetime

from core import clock
from services.metrics.ingest import watermark

_NEVER = datetime.min.replace(tzinfo=UTC)


async def known_until() -> datetime | None:
    """Up to when everything of our own sessions is counted, now at the latest; None where nothing has been yet."""
    found = await watermark()
    return None if found == _NEVER else min(found, clock.now())
