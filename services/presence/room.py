"""One session's participants, as one process knows them.

A process is the one that counts for those who have a stream open at it. For those who only said something (a client
whose mutation reached another process than its stream, or that has no stream) it counts until one with a stream is
heard of. What changes is told once per beat, and everything again every few seconds: what is not told again is gone.
So a lost message, and a process that died, mend themselves. Times of other processes are never compared with ours.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from core import clock
from core.bus import Bus, Gap
from core.errors import QuarterdeckError, SlowConsumer
from core.permissions import Actor
from services.presence.participants import (
    LARGEST_MESSAGE,
    Draft,
    Key,
    Participant,
    PresenceChange,
    PresenceState,
    chunked,
    draft_in,
    draft_out,
    key_in,
    key_out,
    participant_in,
    participant_out,
)
from services.presence.watch import Watch

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
BEAT_FOR = 50
"""Participants for whom the beat is that short. With more it is longer in proportion: each of them then changes
something as often, and everybody still gets as much in a second."""
AGAIN_SECONDS = 4.0
SILENT_SECONDS = 10.0
"""After this long without a word of a participant, their process is taken for dead."""
TYPING_SECONDS = 6.0
GUEST_SECONDS = 30.0
"""How long somebody without a stream stays after their last word."""
ANSWER_SECONDS = 0.3
ANSWER_JITTER_SECONDS = 0.1
LOOK_SECONDS = 1.0
MOST_HEARD = 5_000


@dataclass(slots=True)
class _Local:
    """Somebody this process tells the others of."""

    actor: Actor
    client_id: str
    since: datetime
    state: PresenceState = PresenceState.VIEWING
    message_id: UUID | None = None
    streams: int = 0
    said_at: float = 0.0

    @property
    def participant(self) -> Participant:
        assert self.actor.user_id is not None
        return Participant(self.actor.user_id, self.client_id, self.state, self.message_id, self.since)


@dataclass(slots=True)
class _Heard:
    """What another process told of somebody, and when it was last heard."""

    participant: Participant
    watching: bool
    at: float


class Room:
    """The participants of a session. Its tasks run until `is_needed` says no more; then `on_close` is called."""

    def __init__(
        self,
        session_id: UUID,
        bus: Bus,
        process: str,
        may_stay: Callable[[Actor, UUID], Awaitable[bool]],
        on_close: Callable[[Room], None],
    ) -> None:
        self.session_id = session_id
        self.view: dict[Key, Participant] = {}
        self.version = 0
        self.last_change: PresenceChange | None = None
        self.last_drafts: tuple[Draft, ...] = ()
        self.draft_version = 0
        self.settled = asyncio.Event()
        self.pinned_until = 0.0
        self._bus, self._process = bus, process
        self._may_stay, self._on_close = may_stay, on_close
        self._local: dict[Key, _Local] = {}
        self._heard: dict[tuple[str, Key], _Heard] = {}
        self._told: dict[Key, tuple[Any, ...]] = {}
        self._for_others: dict[Key, Participant] = {}
        self._own_drafts: dict[Key, Draft] = {}
        self._incoming: dict[Key, Draft] = {}
        self._drafts: dict[Key, tuple[int, Draft]] = {}
        self._watches: set[Watch] = set()
        self._dirty = asyncio.Event()
        self._again_at = time.monotonic() + AGAIN_SECONDS
        self._bus_away_at = 0.0
        self._answering: asyncio.Task[None] | None = None
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._beat())]

    # -- what is done at this process

    def watch(self, wake: Callable[[], None]) -> Watch:
        """Have a stream told; `wake` is called when there is something."""
        watch = Watch(self, wake)
        self._watches.add(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        self._watches.discard(watch)
        self._dirty.set()

    def arrive(self, actor: Actor, client_id: str) -> Key:
        """Somebody has opened a stream here."""
        mine = self._mine(actor, client_id)
        mine.streams += 1
        self._dirty.set()
        return mine.participant.key

    def leave(self, key: Key) -> None:
        """They have closed it; with the last one they are gone."""
        mine = self._local.get(key)
        if mine is not None:
            mine.streams -= 1
            if mine.streams <= 0:
                del self._local[key]
        self._dirty.set()

    def say(
        self, actor: Actor, client_id: str, state: PresenceState, message_id: UUID | None, draft: Draft | None
    ) -> Participant:
        """Somebody says what they do. Where their stream is at another process, it is told."""
        key = (user_of(actor), client_id)
        elsewhere = next((h for (_, k), h in self._heard.items() if k == key and h.watching), None)
        if elsewhere is not None and key not in self._local:
            said = replace(elsewhere.participant, state=state, message_id=message_id)
            self._for_others[key] = said
        else:
            mine = self._mine(actor, client_id)
            mine.state, mine.message_id, mine.said_at = state, message_id, time.monotonic()
            said = mine.participant
        if draft is not None:
            self._own_drafts[key] = draft
        self._dirty.set()
        return said

    def clients_of(self, user_id: UUID) -> int:
        """How many clients of a user this process tells of."""
        return sum(key[0] == user_id for key in self._local)

    def has(self, key: Key) -> bool:
        return key in self._local

    def merged(self) -> dict[Key, Participant]:
        """Everybody, by what is known this moment."""
        best: dict[Key, tuple[bool, float, Participant]] = {}
        for (_, key), heard in self._heard.items():
            rank = (heard.watching, heard.at, heard.participant)
            if key not in best or rank[:2] > best[key][:2]:
                best[key] = rank
        for key, mine in self._local.items():
            if mine.streams or key not in best or not best[key][0]:
                best[key] = (True, 0.0, mine.participant)
        return {key: participant for key, (_, _, participant) in best.items()}

    def drafts_after(self, version: int) -> tuple[Draft, ...]:
        """Those of the drafts that are still being written and came later, as many as a message holds."""
        newer = {key: draft for key, (at, draft) in reversed(self._drafts.items()) if at > version}
        return tuple(_take(newer))

    @property
    def is_needed(self) -> bool:
        return bool(self._watches or self._local or self._told) or time.monotonic() < self.pinned_until

    async def close(self) -> None:
        """End it now, and tell the others that those who were here are gone."""
        for task in self._all_tasks():
            task.cancel()
        await asyncio.gather(*self._all_tasks(), return_exceptions=True)
        self._local.clear()
        with suppress(QuarterdeckError):
            await self._tell_changes()

    # -- the beat

    async def _beat(self) -> None:
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._dirty.wait()
                self._dirty.clear()
                await self._step()
                if not self.is_needed or self._tasks[0].done():
                    break  # nobody is here; or the bus is closed, and the process stops
                await asyncio.sleep(BEAT_SECONDS * max(1.0, len(self.view) / BEAT_FOR))
        except QuarterdeckError as error:
            log.debug("presence in a session is not told any more: %s", error)
        finally:
            self._on_close(self)
            for task in self._all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()

    async def _step(self) -> None:
        now = time.monotonic()
        self._grow_old(now)
        view = self.merged()
        change = PresenceChange.between(self.view, view)
        if change is not None:
            self.view, self.last_change = view, change
            self.version += 1
        own = _take(self._own_drafts)
        self._incoming.update({draft.key: draft for draft in own})
        if self._hand_on_drafts() or change is not None:
            for watch in self._watches:
                watch.wake()
        if not self._bus.connected:
            self._bus_away_at = now
            return
        await self._tell_changes()
        if own:
            await self._publish("drafts", [draft_out(draft) for draft in own])
        if now >= self._again_at:
            await self._show_out_guests()
            await self._tell_again()

    def _grow_old(self, now: float) -> None:
        for key, mine in list(self._local.items()):
            silent = now - mine.said_at
            if mine.state is PresenceState.TYPING and silent >= TYPING_SECONDS:
                mine.state = PresenceState.VIEWING
            if not mine.streams and silent >= GUEST_SECONDS:
                del self._local[key]
        # While the bus is away nobody can be heard, and nobody is missed.
        for heard_of, heard in list(self._heard.items()):
            if self._bus.connected and now - max(heard.at, self._bus_away_at) >= SILENT_SECONDS:
                del self._heard[heard_of]

    def _hand_on_drafts(self) -> bool:
        drafts = tuple(_take(self._incoming))
        if drafts:
            self.last_drafts = drafts
            self.draft_version += 1
        for draft in drafts:
            self._drafts.pop(draft.key, None)
            self._drafts[draft.key] = (self.draft_version, draft)
        # Those who come later are shown what is being written, and no more.
        for key in [key for key in self._drafts if not self._is_typing(key)]:
            del self._drafts[key]
        if self._incoming or self._own_drafts:
            self._dirty.set()
        return bool(drafts)

    def _is_typing(self, key: Key) -> bool:
        participant = self.view.get(key)
        return participant is not None and participant.state is PresenceState.TYPING

    async def _show_out_guests(self) -> None:
        """Streams end with their access; who has none is looked at here."""
        for key, mine in list(self._local.items()):
            if mine.streams:
                continue
            try:
                stays = await self._may_stay(mine.actor, self.session_id)
            except Exception:
                log.warning("whether somebody may still be in a session could not be asked", exc_info=True)
                return
            if not stays and self._local.get(key) is mine:
                del self._local[key]
                self._dirty.set()

    # -- what is told

    async def _tell_changes(self) -> None:
        now_here = {
            key: (mine.state, mine.message_id, mine.streams > 0, mine.participant) for key, mine in self._local.items()
        }
        changed = [
            participant_out(mine[3], watching=mine[2]) for key, mine in now_here.items() if self._told.get(key) != mine
        ]
        gone = [key_out(key) for key in self._told if key not in now_here]
        for_others = [participant_out(one, watching=False) for one in self._for_others.values()]
        self._told = now_here
        self._for_others.clear()
        for word, items in (("set", changed), ("for", for_others), ("gone", gone)):
            for chunk in chunked(items):
                await self._publish(word, chunk)

    async def _tell_again(self) -> None:
        self._again_at = time.monotonic() + AGAIN_SECONDS * random.uniform(0.8, 1.0)
        everybody = [participant_out(mine.participant, watching=mine.streams > 0) for mine in self._local.values()]
        for chunk in chunked(everybody):
            await self._publish("again", chunk)

    async def _publish(self, word: str, items: list[Any]) -> None:
        await self._bus.publish(channel(self.session_id), {"p": self._process, word: items})

    # -- what is heard

    async def _listen(self) -> None:
        try:
            await self._hear_all()
        except QuarterdeckError as error:
            log.debug("presence in a session is not heard any more: %s", error)
        finally:
            self._settled()  # nobody shall wait for answers that cannot come

    async def _hear_all(self) -> None:
        while True:
            try:
                async with self._bus.subscribe(channel(self.session_id)) as notices:
                    await self._publish("ask", [])
                    self._settle()
                    async for notice in notices:
                        if isinstance(notice, Gap):
                            await self._publish("ask", [])
                            self._answer_soon()
                        else:
                            self._hear(notice.data)
                    return  # the bus is closed: the process is stopping
            except SlowConsumer:
                continue

    def _settle(self) -> None:
        """Those who come wait for the answers of other processes, where there can be any."""
        if self._bus.is_alone:
            self._settled()
        elif not self.settled.is_set():
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._settled)

    def _settled(self) -> None:
        self.settled.set()
        for watch in self._watches:
            watch.wake()

    def _hear(self, data: dict[str, Any]) -> None:
        process = data.get("p")
        if process == self._process:
            return
        try:
            if "ask" in data:
                self._answer_soon()
            for word in ("set", "again", "for"):
                for told in data.get(word, ()):
                    self._hear_of(str(process), word, *participant_in(told))
            for told in data.get("gone", ()):
                if self._heard.pop((str(process), key_in(told)), None):
                    self._dirty.set()
            for told in data.get("drafts", ()):
                draft = draft_in(told)
                self._incoming[draft.key] = draft
                self._dirty.set()
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            log.debug("skipped what was no message about presence: %s", error)

    def _hear_of(self, process: str, word: str, participant: Participant, watching: bool) -> None:
        key = participant.key
        mine = self._local.get(key)
        if not watching and word != "again" and mine is not None and mine.streams:
            # What the client said reached another process; its stream is here.
            mine.state, mine.message_id, mine.said_at = participant.state, participant.message_id, time.monotonic()
            self._dirty.set()
        if word == "for":
            return
        if watching and mine is not None and not mine.streams:
            del self._local[key]
        known = self._heard.get((process, key))
        if known is None and len(self._heard) >= MOST_HEARD:
            return
        if known is not None:
            participant = replace(participant, since=known.participant.since)
        if known is None or (known.participant, known.watching) != (participant, watching):
            self._dirty.set()
        self._heard[process, key] = _Heard(participant, watching, time.monotonic())

    def _answer_soon(self) -> None:
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        # Not all at once; and several who ask together get one answer.
        await asyncio.sleep(random.uniform(0, ANSWER_JITTER_SECONDS))
        with suppress(QuarterdeckError):
            await self._tell_again()

    # -- details

    def _mine(self, actor: Actor, client_id: str) -> _Local:
        key = (user_of(actor), client_id)
        if key not in self._local:
            self._local[key] = _Local(actor, client_id, clock.now(), said_at=time.monotonic())
        return self._local[key]

    def _all_tasks(self) -> list[asyncio.Task[None]]:
        return [*self._tasks, *([self._answering] if self._answering else [])]


def user_of(actor: Actor) -> UUID:
    """Who an actor is as a participant."""
    assert actor.user_id is not None, "only users are participants"
    return actor.user_id


def channel(session_id: UUID) -> str:
    """The bus channel of a session's presence."""
    return f"presence:{session_id}"


def _take(drafts: dict[Key, Draft]) -> list[Draft]:
    """As many drafts as a message holds, the longest waiting first, taken out."""
    taken: list[Draft] = []
    size = 0
    for key, draft in list(drafts.items()):
        size += draft.size + 1
        if taken and size > LARGEST_MESSAGE:
            break
        taken.append(drafts.pop(key))
    return taken
