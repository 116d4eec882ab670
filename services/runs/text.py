"""The text of a message while it is being written: told at once, stored now and then, kept whole at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from uuid import UUID

from core import db
from core.errors import Unavailable
from core.ids import encode
from services.parts import parts
from services.runs.storable import storable
from services.work import session_channel

logger = logging.getLogger(__name__)

# A token a message would be a flood; readers do not see the difference of 25 ms.
TELL_SECONDS = 0.025
STORE_SECONDS = 0.25
# The bus carries at most 7 kB; a character may take 12 bytes as escaped JSON.
LARGEST_PIECE = 500


class TextStream:
    """One message's text. Offsets count characters, so that readers can tell what they have."""

    def __init__(self, session_id: UUID, message_id: UUID, seq: int) -> None:
        self.message_id = message_id
        self._session_id, self._seq = session_id, seq
        self._text: list[str] = []
        self._told = self._length = self._stored = 0
        self._last_store = time.monotonic()
        self._timer: asyncio.Task[None] | None = None
        self._pending: list[str] = []
        self._telling = asyncio.Lock()

    async def add(self, text: str) -> None:
        """More text. Returns at once; it is told within 25 ms."""
        text = storable(text)
        self._text.append(text)
        self._pending.append(text)
        self._length += len(text)
        if self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._soon())

    async def finish(self) -> str:
        """Tell the rest, and return the whole text."""
        await self.stop()
        await self._tell()
        return "".join(self._text)

    async def stop(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()
            with suppress(asyncio.CancelledError):
                await self._timer
            self._timer = None

    async def _soon(self) -> None:
        # A pause of the model must not leave those who come in the middle without what was said before it.
        while self._told < self._length or self._stored < self._length:
            await asyncio.sleep(TELL_SECONDS)
            # Cancelling must not come between taking a piece and telling it.
            await asyncio.shield(self._tell())
            if self._stored < self._length and time.monotonic() - self._last_store >= STORE_SECONDS:
                await self._store()

    async def _tell(self) -> None:
        async with self._telling:
            text, self._pending = "".join(self._pending), []
            for start in range(0, len(text), LARGEST_PIECE):
                piece = text[start : start + LARGEST_PIECE]
                offset, self._told = self._told, self._told + len(piece)
                try:
                    await parts().bus.publish(
                        session_channel(self._session_id),
                        {
                            "message": encode("msg", self.message_id),
                            "after": self._seq,
                            "offset": offset,
                            "text": piece,
                        },
                    )
                except Unavailable as error:
                    # Readers see that a piece is missing, and read it from the database.
                    logger.warning("A piece of text could not be told: %s", error.message)

    async def _store(self) -> None:
        """For those who come in the middle. A failure here costs them a moment, not the run."""
        self._last_store = time.monotonic()
        self._stored = self._length
        try:
            await db.execute(
                "INSERT INTO message_progress (message_id, session_id, text) "
                "SELECT $1, $2, $3 WHERE EXISTS (SELECT 1 FROM messages WHERE id = $1 AND status = 'STREAMING') "
                "ON CONFLICT (message_id) DO UPDATE SET text = $3",
                self.message_id,
                self._session_id,
                "".join(self._text),
            )
        except Exception:
            logger.warning("Text in progress could not be stored.", exc_info=True)
