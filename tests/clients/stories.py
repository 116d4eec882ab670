"""What must hold for the events that a client saw of one session, whatever the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Event = dict[str, Any]


def assert_nothing_missed_or_repeated(
    before: Sequence[Event], after: Sequence[Event], again: Sequence[Event], *, runs: int
) -> None:
    """`before` and `after` a reconnect in the middle of a run are together what a later reader sees from the start."""
    seen = [*before, *after]
    numbers = [event["seq"] for event in _stored(seen)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [_without_cursor(event) for event in _stored(seen)] == [_without_cursor(event) for event in _stored(again)]
    assert _texts(seen) == _texts(again)
    types = [event["type"] for event in again]
    assert types.count("RUN_STARTED") == types.count("RUN_FINISHED") == runs
    assert types.count("TOOL_CALL_START") == types.count("TOOL_CALL_RESULT") == runs


def _stored(events: Sequence[Event]) -> list[Event]:
    """The numbered events of the log: all but text while it is being written."""
    return [event for event in events if event["type"] != "TEXT_MESSAGE_CONTENT"]


def _without_cursor(event: Event) -> Event:
    """A cursor also says how much of a message in progress its reader had, which differs between readers."""
    return {name: value for name, value in event.items() if name != "cursor"}


def _texts(events: Sequence[Event]) -> dict[str, str]:
    """The text of each message, put together from pieces that must follow each other without gap or overlap."""
    texts: dict[str, str] = {}
    for event in events:
        if event["type"] == "TEXT_MESSAGE_CONTENT":
            message = event["data"]["messageId"]
            assert event["offset"] == len(texts.get(message, ""))
            texts[message] = texts.get(message, "") + event["delta"]
    return texts
