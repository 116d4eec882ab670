"""What a stream still has to be told of a room."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from services.presence.participants import Draft, Key, Participant, PresenceChange

if TYPE_CHECKING:
    from services.presence.room import Room


class Watch:
    """What a stream still has to be told."""

    def __init__(self, room: Room, wake: Callable[[], None]) -> None:
        self._room, self.wake = room, wake
        self.leave: Callable[[], object] = lambda: None
        """Be seen no more, before the stream ends."""
        self._seen: dict[Key, Participant] | None = None
        self._version = self._drafts = 0
        self._exact = False

    def change(self) -> PresenceChange | None:
        """Everybody at first, then all that changed since the last time; None where there is nothing to tell."""
        room = self._room
        if self._seen is None:
            if not room.settled.is_set():
                return None
            self._seen, self._version = room.merged(), room.version
            return PresenceChange(participants=tuple(sorted(self._seen.values(), key=lambda one: one.since)))
        if room.version == self._version:
            return None
        # Those who keep up share what the room found.
        in_step = self._exact and room.version == self._version + 1
        change = room.last_change if in_step else PresenceChange.between(self._seen, room.view)
        self._seen, self._version, self._exact = room.view, room.version, True
        return change

    def drafts(self) -> tuple[Draft, ...]:
        """The drafts that are new to the stream. None before it knows who is there."""
        room = self._room
        if self._seen is None or room.draft_version == self._drafts:
            return ()
        in_step = room.draft_version == self._drafts + 1
        found = room.last_drafts if in_step else room.drafts_after(self._drafts)
        self._drafts = room.draft_version
        return found
