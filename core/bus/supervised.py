"""A broadcaster backend that outlives its connection: it reconnects, registers again, and tells of the gap."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from broadcaster import BroadcastBackend, Event

from core.bus.links import ANSWER_SECONDS, Link
from core.errors import Unavailable

log = logging.getLogger(__name__)

CONTROL = "quarterdeck:bus"
"""Channel every process hears: a publisher that had to give up on messages tells all subscribers on it."""

START_SECONDS = 10.0
SHORTEST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
PUBLISH_SECONDS = 30.0
"""How long a message waits for the service to come back before it is given up, with a gap for everybody."""
OUTBOX_SIZE = 10_000
BATCH_SIZE = 100
FLUSH_SECONDS = 2.0


class GapEvent(Event):
    """Stands in a channel where messages may be missing; `message` is the reason."""


class SupervisedBackend(BroadcastBackend):
    """What `Broadcast` is given. None of its methods but `connect` fails or waits because the service is away."""

    def __init__(self, make_link: Callable[[], Link]) -> None:
        self._make_link = make_link
        self._link: Link | None = None
        self._channels: set[str] = set()
        self._registering = asyncio.Lock()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._outbox: deque[tuple[float, Event]] = deque()
        self._outbox_filled = asyncio.Event()
        self._given_up = 0
        self._supervisor: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self.since: datetime | None = None
        self.reconnects = 0
        self.last_error: str | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a working connection now."""
        return self._connected.is_set()

    async def connect(self) -> None:
        """Raises Unavailable when the service can't be reached for some seconds."""
        self._supervisor = asyncio.create_task(self._supervise(), name="bus")
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            await self.disconnect()
            raise Unavailable(
                f"the event bus can't be reached: {self.last_error or 'no answer'}; check QUARTERDECK_BUS_URL"
            ) from None

    async def disconnect(self) -> None:
        if self._supervisor is None:
            return
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._outbox and self.connected and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, return_exceptions=True)

    async def subscribe(self, channel: str) -> None:
        """Returns when the service has registered the channel, or will tell of a gap once it has."""
        self._channels.add(channel)
        async with self._registering:
            link = self._link
            if link is None:
                return
            try:
                await link.listen([channel])
            except Exception as error:  # whatever it was, the link is replaced and a gap is told
                link.fail(error)

    async def unsubscribe(self, channel: str) -> None:
        self._channels.discard(channel)
        async with self._registering:
            link = self._link
            if link is None:
                return
            try:
                await link.unlisten(channel)
            except Exception as error:  # whatever it was, the link is replaced and a gap is told
                link.fail(error)

    async def publish(self, channel: str, message: str) -> None:
        """Takes the message into the outbox, from which it is sent in order as soon as the service takes it."""
        if len(self._outbox) >= OUTBOX_SIZE:
            self._outbox.popleft()
            self._given_up += 1
        self._outbox.append((time.monotonic(), Event(channel, message)))
        self._outbox_filled.set()
        if len(self._outbox) >= BATCH_SIZE:
            await asyncio.sleep(0)  # a publisher that never waits would starve the sender and every reader

    async def next_published(self) -> Event:
        return await self._events.get()

    async def _supervise(self) -> None:
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            link = self._make_link()
            opened_at: float | None = None
            try:
                await self._bring_up(link)
                opened_at = time.monotonic()
                await self._serve(link)
            except Exception as error:  # whatever ended the link, the bus must come back
                cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                self.last_error = f"{type(cause).__name__}: {cause}"
                log.warning("the event bus is disconnected: %s", self.last_error)
            finally:
                self._link = None
                self._connected.clear()
                await self._close(link)
            if opened_at is not None and time.monotonic() - opened_at > pause:
                pause = SHORTEST_PAUSE_SECONDS
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _bring_up(self, link: Link) -> None:
        async with asyncio.timeout(2 * ANSWER_SECONDS):
            await link.open()
        async with self._registering:
            await link.listen([CONTROL, *self._channels])
            self._link = link
        again = self.since is not None
        self.since = datetime.now(UTC)
        self._connected.set()
        if again:
            self.reconnects += 1
            log.info("the event bus is connected again; subscribers read the database again")
            self._tell_gap("the connection to the event bus was lost and is back")

    async def _serve(self, link: Link) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(link))
            tasks.create_task(self._send(link))

    async def _receive(self, link: Link) -> None:
        while True:
            event = await link.receive()
            if event.channel == CONTROL:
                self._tell_gap(event.message)
            else:
                self._events.put_nowait(event)

    async def _send(self, link: Link) -> None:
        while True:
            await self._outbox_filled.wait()
            while self._outbox and self._outbox[0][0] < time.monotonic() - PUBLISH_SECONDS:
                self._outbox.popleft()
                self._given_up += 1
            if self._given_up:
                given_up = self._given_up
                log.error(
                    "%d messages could not be published; every subscriber is told to read again",
                    given_up,
                )
                await link.publish([Event(CONTROL, "a publisher could not deliver some messages")])
                self._given_up -= given_up
            batch = [event for _, event in list(self._outbox)[:BATCH_SIZE]]
            if batch:
                # They leave the outbox only when they are through: what the service took before an error is
                # sent twice, and the numbers in the messages let receivers drop the second.
                await link.publish(batch)
                self._forget(batch)
            if not self._outbox:
                self._outbox_filled.clear()

    def _forget(self, sent: list[Event]) -> None:
        for event in sent:
            if self._outbox and self._outbox[0][1] is event:
                self._outbox.popleft()

    def _tell_gap(self, reason: str) -> None:
        for channel in self._channels:
            self._events.put_nowait(GapEvent(channel, reason))

    @staticmethod
    async def _close(link: Link) -> None:
        try:
            await link.close()
        except Exception:
            log.debug("closing a lost connection of the event bus failed", exc_info=True)
