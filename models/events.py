"""Rows of a session's event log and of an organisation's feed of changed sessions. Tables made by SQL."""

from __future__ import annotations

from models.base import Row


class SessionEventRow(Row):
    __slots__ = ()


class SessionChangeRow(Row):
    __slots__ = ()
