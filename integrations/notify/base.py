"""The contract for ways to tell people something outside of the product: e-mail now, push and chat by the same door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


class NotDelivered(Exception):
    """It did not go out this time; trying again later makes sense. The message says why, without credentials."""


class Undeliverable(NotDelivered):
    """It never will go out as it is: the address, or the message itself, was refused."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who is told, and where."""

    user_id: UUID
    name: str
    address: str
    """As the channel spells it: an e-mail address, a device's token, a member's id in a chat."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell."""

    id: UUID
    kind: str
    title: str
    """One line."""
    body: str
    """Plain text, perhaps empty."""
    at: datetime
    link: str
    """Where to read on."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What one person is told at once: one notice, or the several of a digest."""

    id: UUID
    """The same at every attempt to send the same notices, so that a repetition can be recognised."""
    recipient: Recipient
    notices: Sequence[Notice]
    """At least one, the oldest first."""
    left_out: int
    """How many more there are in the inbox than the notices say."""
    preferences_link: str
    """Where the recipient says what they want to be told, and how."""


class Notifier(Protocol):
    """One channel."""

    name: str
    """What deliveries call it: `email`."""

    async def send(self, envelope: Envelope) -> None:
        """Returns once the channel has taken the envelope over. Raises NotDelivered, or Undeliverable."""
        ...
