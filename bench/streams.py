"""An audience: many subscribers of one session, or of one each, and somebody who sends; and how events reach them."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from bench.cases import EVENTS, SEND, SESSION_PLACE, TEXT, Speaks
from bench.load import CLIENT_LIMIT, WrongAnswer, asking, request
from bench.processes import quiet, resident_bytes, rested
from bench.sockets import Arrivals, StreamFailed, Subscriber
from core.ids import encode

EVENTS_PER_MESSAGE = 2
CONNECT_AT_ONCE = 100
STUCK_SECONDS = 120.0
SENDERS = 8
"""Connections that messages are sent over; no more are sent at once."""
UNDER_WAY = 4
"""Messages whose events have not reached everybody, where one session has all subscribers."""
LATE_SECONDS, LATE_SHARE = 1.0, 0.25
"""Who has the last event so much after it was sent, in seconds and of the whole time, could not keep up."""

Ask = Callable[[bytes], Awaitable[bytes]]


@dataclass
class Streamed:
    """What one measurement saw. Latencies in seconds, from sending the message to the arrival of its event."""

    subscribers: int
    delivered: int
    seconds: float
    late_seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float = 0.0
    database_cpu_seconds: float = 0.0
    latencies: array[float] = field(default_factory=lambda: array("d"), repr=False)

    @property
    def per_second(self) -> float:
        return self.delivered / self.seconds

    @property
    def client_bound(self) -> bool:
        return self.client_cpu_seconds / self.seconds >= CLIENT_LIMIT

    @property
    def kept_up(self) -> bool:
        return self.late_seconds <= max(LATE_SECONDS, LATE_SHARE * self.seconds)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What it took to have all subscribers: seconds, and memory of the server for each when it is at rest."""

    seconds: float
    bytes_each: float


@dataclass
class _Session:
    """A session that messages are sent to."""

    id: str
    subscription: dict[str, object]
    next_seq: int
    sent_at: dict[int, float] = field(default_factory=dict)


class Audience:
    """Subscribers spread evenly over some sessions, and somebody who sends to one session after the other."""

    def __init__(self, port: int, pid: int, token: str, session_ids: Sequence[UUID], speaks: Speaks) -> None:
        self._port, self._pid, self._token, self._speaks = port, pid, token, speaks
        self._session_ids = [encode("ses", id_) for id_ in session_ids]
        self._sessions: list[_Session] = []
        self._subscribers: list[Subscriber] = []
        self._arrivals = Arrivals()
        self._sending: set[asyncio.Task[None]] = set()
        self._sent = 0

    async def gather(self, count: int) -> Gathered:
        """Connect and subscribe them all, and see that each gets its events. Raises StreamFailed."""
        self._arrivals = Arrivals()
        async with asking(self._port, SENDERS) as ask:
            self._sessions = await asyncio.gather(*(self._session(ask, id_) for id_ in self._session_ids[:count]))
        await rested(self._pid)
        memory, began = resident_bytes(self._pid), time.perf_counter()
        await self._subscribe(count)
        # The protocol does not say when a subscription has begun. The server has nothing left to do then.
        subscribed = await quiet(self._pid)
        await self._send_once_to_each()
        await rested(self._pid)
        return Gathered(subscribed - began, (resident_bytes(self._pid) - memory) / count)

    async def saturate(self, seconds: float) -> Streamed:
        """Send as fast as the events arrive, with some messages under way, for so long. Raises StreamFailed."""
        under_way = UNDER_WAY if len(self._sessions) == 1 else SENDERS
        async with asking(self._port, SENDERS) as ask:
            began, cpu = self._begin()
            while (now := time.perf_counter()) < began + seconds:
                self._send(ask, now)
                await self._arrive(self._sent - under_way + 1)
                while len(self._sending) >= under_way:
                    await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            await self._all_arrive()
            return self._seen(began, cpu)

    async def pace(self, seconds: float, deliveries_per_second: float) -> Streamed:
        """Send so that so many events are delivered each second, whether they are or not. Raises StreamFailed.

        An event's time begins when its message was to be sent: what waits for its turn is late too.
        """
        pause = self._deliveries_of_a_message / deliveries_per_second
        async with asking(self._port, SENDERS) as ask:
            began, cpu = self._begin()
            due = began
            while due < began + seconds:
                await asyncio.sleep(due - time.perf_counter())
                self._send(ask, due)
                due += pause
            await self._all_arrive()
            return self._seen(began, cpu)

    async def leave(self) -> None:
        """Close all sockets."""
        for subscriber in self._subscribers:
            subscriber.leave()
        self._subscribers.clear()
        await quiet(self._pid)

    def _begin(self) -> tuple[float, float]:
        """Count events anew from now; the times of the clock and of this process's CPU."""
        self._arrivals.latencies, self._sent = array("d"), 0
        for subscriber in self._subscribers:
            subscriber.received = 0
        for session in self._sessions:
            session.sent_at.clear()
        return time.perf_counter(), time.process_time()

    def _seen(self, began: float, cpu: float) -> Streamed:
        latencies = self._arrivals.latencies
        return Streamed(
            subscribers=len(self._subscribers),
            delivered=len(latencies),
            seconds=time.perf_counter() - began,
            late_seconds=latencies[-1],
            client_cpu_seconds=time.process_time() - cpu,
            latencies=latencies,
        )

    @property
    def _deliveries_of_a_message(self) -> int:
        return EVENTS_PER_MESSAGE * len(self._subscribers) // len(self._sessions)

    async def _session(self, ask: Ask, id_: str) -> _Session:
        """A session, where its log ends, and what a subscription goes on from there with."""
        if self._speaks is Speaks.PLAIN:
            answer = orjson.loads(await ask(request("/place", {"id": id_}, self._token, self._port)))
            return _Session(id_, {"query": EVENTS, "variables": {"id": id_}}, answer["data"]["next"])
        body = {"query": SESSION_PLACE, "variables": {"id": id_}}
        answer = orjson.loads(await ask(request("/graphql", body, self._token, self._port)))
        cursor = answer["data"]["session"]["lastEventCursor"]
        seq = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))[0]
        return _Session(id_, {"query": EVENTS, "variables": {"id": id_, "after": cursor}}, seq + 1)

    async def _subscribe(self, count: int) -> None:
        """Connect so many, some at once, and have them ask for their events."""
        at_once = asyncio.Semaphore(CONNECT_AT_ONCE)

        async def connect(subscriber: Subscriber) -> None:
            async with at_once:
                await asyncio.get_running_loop().create_connection(lambda: subscriber, "127.0.0.1", self._port)
                await subscriber.ready

        self._subscribers = [
            Subscriber(self._port, self._token, session.subscription, session.sent_at, self._arrivals)
            for session in itertools.islice(itertools.cycle(self._sessions), count)
        ]
        connecting = [asyncio.create_task(connect(subscriber)) for subscriber in self._subscribers]
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                await asyncio.gather(*connecting)
        except (OSError, StreamFailed) as error:  # TimeoutError is an OSError
            raise StreamFailed(f"Not all could subscribe: {error}") from None
        finally:
            for task in connecting:
                task.cancel()
            await asyncio.gather(*connecting, return_exceptions=True)

    def _send(self, ask: Ask, now: float) -> None:
        """Begin to send a message to the next session."""
        session = self._sessions[self._sent % len(self._sessions)]
        self._sent += 1
        for _ in range(EVENTS_PER_MESSAGE):
            session.sent_at[session.next_seq] = now
            session.next_seq += 1
        variables = {"input": {"sessionId": session.id, "text": TEXT}}
        data = (
            request("/send", variables, self._token, self._port)
            if self._speaks is Speaks.PLAIN
            else request("/graphql", {"query": SEND, "variables": variables}, self._token, self._port)
        )
        task = asyncio.create_task(self._answered(ask, data))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _answered(self, ask: Ask, data: bytes) -> None:
        try:
            await ask(data)
        except (WrongAnswer, OSError) as error:  # TimeoutError is one
            self._arrivals.fail(f"A message could not be sent: {error!r}")

    async def _send_once_to_each(self) -> None:
        async with asking(self._port, SENDERS) as ask:
            self._begin()
            for _ in self._sessions:
                self._send(ask, time.perf_counter())
            await self._all_arrive()

    async def _arrive(self, messages: int) -> None:
        """Wait until as many events have arrived as so many messages make."""
        await self._arrivals.reach(messages * self._deliveries_of_a_message, STUCK_SECONDS)

    async def _all_arrive(self) -> None:
        await self._arrive(self._sent)
        while self._sending:
            await asyncio.wait(self._sending)
        await self._arrivals.reach(0, 0)
        sent, ahead = divmod(self._sent, len(self._sessions))
        for number, subscriber in enumerate(self._subscribers):
            expected = EVENTS_PER_MESSAGE * (sent + (number % len(self._sessions) < ahead))
            if subscriber.received != expected:
                raise StreamFailed(f"A subscriber got {subscriber.received} events of {expected}.")
