"""Up to when figures are complete."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from core import clock, db
from services.metrics.ingest import watermark

_NEVER = datetime.min.replace(tzinfo=UTC)


async def known_until() -> datetime | None:
    """Up to when everything of our own sessions is counted, now at the latest; None where nothing has been yet."""
    found = await watermark()
    return None if found == _NEVER else min(found, clock.now())


_LATELY_SECONDS = 1.0
_lately: tuple[object, float, datetime | None] | None = None


async def known_lately() -> datetime | None:
    """As `known_until`, or what it was within the last second: what is read from now on has all of before that."""
    global _lately
    if _lately is None or _lately[0] is not db.pool() or time.monotonic() - _lately[1] > _LATELY_SECONDS:
        asked = time.monotonic()
        _lately = (db.pool(), asked, await known_until())
    return _lately[2]
