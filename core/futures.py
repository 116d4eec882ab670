"""What several wait for, of whom some may have gone."""

from __future__ import annotations

import asyncio
from typing import Any


def retrieved(future: asyncio.Future[Any]) -> None:
    """A callback for `add_done_callback`: an error that nobody waits for any more is not worth a line in the log."""
    if not future.cancelled():
        future.exception()
