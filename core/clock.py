"""The one place that reads the wall clock, so that tests can move it; and how times are written as text."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The current time, aware and in UTC."""
    return datetime.now(UTC)


def moment(value: datetime, *, timespec: str = "auto") -> str:
    """A time in UTC, as ISO 8601 with a Z; `timespec` as `datetime.isoformat` has it."""
    return value.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
