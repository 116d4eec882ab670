"""Rows of a session's event log. The table is made by SQL."""

from __future__ import annotations

from models.base import Row


class SessionEventRow(Row):
    __slots__ = ()
