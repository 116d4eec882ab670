"""What ids of registered documents stand for, in a process's memory.

What is not there is asked of the database: at once where nobody asked lately, and in one statement with what others
ask for meanwhile, so that a flood of ids that nobody registered is a few statements a second.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from typing import Generic, TypeVar

from core.errors import RateLimited
from core.futures import retrieved
from services.documents import retirements, texts_of

MOST_CHARACTERS = 4_000_000
MOST_UNKNOWN = 10_000
UNKNOWN_SECONDS = 1.0
"""How long an id that nobody registered is not asked for again."""
PAUSE_SECONDS = 0.02
"""At least this long from one statement to the next."""
MOST_IN_STATEMENT = 1000
MOST_WAITING = 5000
RETIREMENTS_SECONDS = 5.0
"""How long a document of a retired release may still be executed."""

K = TypeVar("K")


class Texts(Generic[K]):
    """Texts, the least recently used of which are forgotten where all together are too long."""

    def __init__(self, most_characters: int) -> None:
        self._most = most_characters
        self._texts: OrderedDict[K, str] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, key: K) -> str | None:
        text = self._texts.get(key)
        if text is not None:
            self._texts.move_to_end(key)
        return text

    def put(self, key: K, text: str) -> None:
        if key in self._texts:
            return
        self._texts[key] = text
        self._characters += len(text)
        while self._characters > self._most:
            _, dropped = self._texts.popitem(last=False)
            self._characters -= len(dropped)

    def clear(self) -> None:
        self._texts.clear()
        self._characters = 0


class DocumentMemory:
    """The registered documents that were asked for lately."""

    def __init__(self) -> None:
        self._known: Texts[str] = Texts(MOST_CHARACTERS)
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._waiting: OrderedDict[str, asyncio.Future[str | None]] = OrderedDict()
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = -math.inf
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -math.inf
        self._retirements: tuple[object, ...] | None = None
        self._clearings = 0

    def __len__(self) -> int:
        return len(self._known)

    def known(self, identifier: str) -> str | None:
        """The text, the same object each time; None where it is not in memory."""
        self._look_for_retirements()
        return self._known.get(identifier)

    async def find(self, identifier: str) -> str | None:
        """The text; None where no release in use has it.

        Raises RateLimited where too many ask for ids that are not known here.
        """
        text = self.known(identifier)
        if text is not None:
            return text
        if time.monotonic() - self._unknown.get(identifier, -math.inf) < UNKNOWN_SECONDS:
            return None
        future = self._waiting.get(identifier)
        if future is None:
            if len(self._waiting) >= MOST_WAITING:
                raise RateLimited("Too many documents are looked up. Try again shortly.", retryAfterSeconds=1)
            future = self._waiting[identifier] = asyncio.get_running_loop().create_future()
            future.add_done_callback(retrieved)
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(future)

    async def _ask(self) -> None:
        while self._waiting:
            await asyncio.sleep(max(0.0, self._asked_at + PAUSE_SECONDS - time.monotonic()))
            self._asked_at = time.monotonic()
            asked = list(self._waiting)[:MOST_IN_STATEMENT]
            clearings = self._clearings
            try:
                found = await texts_of(asked)
            except Exception as error:
                for identifier in asked:
                    self._waiting.pop(identifier).set_exception(error)
                continue
            at = time.monotonic()
            for identifier in asked:
                text = found.get(identifier)
                if text is None:
                    self._unknown.pop(identifier, None)
                    self._unknown[identifier] = at
                elif clearings == self._clearings:
                    self._known.put(identifier, text)
                self._waiting.pop(identifier).set_result(text)
            while len(self._unknown) > MOST_UNKNOWN:
                self._unknown.popitem(last=False)

    def _look_for_retirements(self) -> None:
        """Beside the requests, none of which waits for it."""
        now = time.monotonic()
        if now - self._looked_at < RETIREMENTS_SECONDS:
            return
        if self._looking is None or self._looking.done():
            self._looked_at = now
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        try:
            found = await retirements()
        except Exception:
            return  # what is known stays so while the database is away
        if found != self._retirements:
            self._known.clear()
            self._clearings += 1
            self._retirements = found
