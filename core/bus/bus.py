"""The bus of one process."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
from broadcaster import Broadcast, Event

from core.bus.links import link_factory
from core.bus.notices import JSON, BusMessage, BusSubscription, Gap, Notice
from core.bus.supervised import CONTROL, GapEvent, SupervisedBackend
from core.errors import BadInput, TooLarge, Unavailable

log = logging.getLogger(__name__)

MAX_CHANNEL_BYTES = 63  # PostgreSQL's longest name
MAX_MESSAGE_BYTES = 7_000  # PostgreSQL refuses payloads of 8,000
REMEMBERED_CHANNELS = 10_000


@dataclass(frozen=True, slots=True)
class BusStatus:
    """State of the bus for health checks. `since` is when the present or last connection was made."""

    transport: str
    connected: bool
    since: datetime | None
    reconnects: int
    channels: int
    subscribers: int
    last_error: str | None


class Bus:
    """Publishes to, and subscribes this process's readers to, named channels (`session:<uuid>`).

    `url` is `memory://` (this process only), `redis://…` or `postgres://…`. `queue_size` is how many notices may
    wait for one reader before it is told that it is too slow. Raises BadInput for an address it has no transport for.
    """

    def __init__(self, url: str, *, queue_size: int = 1000) -> None:
        self._backend = SupervisedBackend(link_factory(url))
        self._broadcast = Broadcast(backend=self._backend)
        self._transport = urlsplit(url).scheme
        self._queue_size = queue_size
        self._channels: dict[str, _Channel] = {}
        self._changing = asyncio.Lock()
        self._closings: set[asyncio.Task[None]] = set()
        self._open = False
        self._publisher = secrets.token_hex(6)
        self._number = 0
        self._previous: OrderedDict[str, int] = OrderedDict()

    async def connect(self) -> None:
        """Raises Unavailable when the service can't be reached for 10 seconds."""
        await self._broadcast.connect()
        self._open = True

    async def close(self) -> None:
        """Send what waits to be sent (for two seconds at most), and end every subscription."""
        if not self._open:
            return
        self._open = False
        for channel in self._channels.values():
            for subscription in channel.subscriptions:
                subscription.end()
        pumps = [channel.pump for channel in self._channels.values()]
        self._channels.clear()
        await _cancel(*pumps, *self._closings)
        await self._broadcast.disconnect()

    async def publish(self, channel: str, message: Mapping[str, JSON]) -> None:
        """Send ids, not bodies: at most 7 kB of JSON, else TooLarge. Order is kept per channel and process.

        It does not wait for the service. While that is away, messages wait (30 s, 10,000 of them); what must be
        given up then is told to every subscriber of every process as a Gap.
        """
        if not self._open:
            raise Unavailable("the event bus is not connected: call connect() first")
        _check_channel(channel)
        # The numbers let a receiver drop what a retry sent twice, and see what the service lost.
        previous = self._previous.get(channel, 0)
        number = self._number + 1
        text = orjson.dumps(
            {
                "from": self._publisher,
                "number": number,
                "previous": previous,
                "data": dict(message),
            }
        )
        if len(text) > MAX_MESSAGE_BYTES:
            raise TooLarge(
                f"a message on the bus may have {MAX_MESSAGE_BYTES} bytes, this one has {len(text)}: "
                "store the body and send its id"
            )
        self._previous.pop(channel, None)  # to the end of the line of those to forget
        self._number = self._previous[channel] = number
        if len(self._previous) > REMEMBERED_CHANNELS:
            self._previous.popitem(last=False)
        await self._broadcast.publish(channel, text.decode())

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[BusSubscription]:
        """Everything published on the channels from the moment the context is entered until it is left.

        While the service is away entering does not wait for it; a Gap follows once it is back.
        """
        for channel in channels:
            _check_channel(channel)
        return self._subscribed(dict.fromkeys(channels))

    @property
    def connected(self) -> bool:
        """Whether messages get through now; cheaper to ask than `status`."""
        return self._open and self._backend.connected

    @property
    def is_alone(self) -> bool:
        """Whether no other process can hear what is published."""
        return self._transport == "memory"

    def status(self) -> BusStatus:
        """How the bus is now, without asking the service."""
        return BusStatus(
            transport=self._transport,
            connected=self.connected,
            since=self._backend.since,
            reconnects=self._backend.reconnects,
            channels=len(self._channels),
            subscribers=len({id(s) for channel in self._channels.values() for s in channel.subscriptions}),
            last_error=self._backend.last_error,
        )

    @asynccontextmanager
    async def _subscribed(self, names: Mapping[str, None]) -> AsyncIterator[BusSubscription]:
        subscription = BusSubscription(self._queue_size)
        try:
            for name in names:
                await self._join(name, subscription)
            yield subscription
        finally:
            for name in names:
                self._leave(name, subscription)

    async def _join(self, name: str, subscription: BusSubscription) -> None:
        async with self._changing:
            if not self._open:
                raise Unavailable("the event bus is not connected")
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = _Channel(name, self._broadcast)
            await channel.registered.wait()
            if not self._open:
                raise Unavailable("the event bus was closed")
            channel.subscriptions.add(subscription)

    def _leave(self, name: str, subscription: BusSubscription) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        channel.subscriptions.discard(subscription)
        if not channel.subscriptions:
            # In a task of its own, for the leaving task may be cancelled and unable to wait for the service.
            closing = asyncio.create_task(self._drop(channel))
            self._closings.add(closing)
            closing.add_done_callback(self._closings.discard)

    async def _drop(self, channel: _Channel) -> None:
        async with self._changing:
            if self._channels.get(channel.name) is channel and not channel.subscriptions:
                await channel.registered.wait()  # broadcaster forgets to unsubscribe what is cancelled before
                await _cancel(channel.pump)
                del self._channels[channel.name]


class _Channel:
    """One channel's single subscription in this process, and the readers it is handed on to."""

    def __init__(self, name: str, broadcast: Broadcast) -> None:
        self.name = name
        self.subscriptions: set[BusSubscription] = set()
        self.registered = asyncio.Event()
        self._last: dict[str, int] = {}
        self._followed: set[str] = set()
        self.pump = asyncio.create_task(self._run(broadcast), name=f"bus {name}")

    async def _run(self, broadcast: Broadcast) -> None:
        try:
            async with broadcast.subscribe(self.name) as events:
                self.registered.set()
                while True:
                    self._take(await events.get())
        finally:
            self.registered.set()

    def _take(self, event: Event) -> None:
        if isinstance(event, GapEvent):
            self._followed.clear()
            return self._hand_on(Gap(event.message))
        try:
            publisher, number, previous, data = _parse(event.message)
        except ValueError as error:
            log.warning("skipped an invalid message on bus channel %s: %s", self.name, error)
            return None
        last = self._last.get(publisher, 0)
        if number <= last:
            return None
        if publisher in self._followed and previous > last:
            self._hand_on(Gap("messages on the event bus were lost"))
        self._last[publisher] = number
        self._followed.add(publisher)
        return self._hand_on(BusMessage(self.name, data))

    def _hand_on(self, notice: Notice) -> None:
        for subscription in self.subscriptions:
            subscription.offer(notice)


def _parse(text: str) -> tuple[str, int, int, dict[str, Any]]:
    envelope = orjson.loads(text)
    match envelope:
        case {
            "from": str(publisher),
            "number": int(number),
            "previous": int(previous),
            "data": dict(data),
        }:
            return publisher, number, previous, data
    raise ValueError("it is not one of ours")


def _check_channel(name: str) -> None:
    if not name or name == CONTROL or "\0" in name or len(name.encode()) > MAX_CHANNEL_BYTES:
        raise BadInput(f"a channel needs a name of 1 to {MAX_CHANNEL_BYTES} bytes that is not the bus's own: {name!r}")


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
