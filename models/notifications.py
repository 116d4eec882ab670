"""What people are told of, and how they want to be told."""

from __future__ import annotations

from enum import StrEnum


class NotificationKind(StrEnum):
    """Why somebody is told."""

    MENTION = "MENTION"
    REPLY = "REPLY"
    SHARE = "SHARE"
    HANDOFF = "HANDOFF"
    APPROVAL_WANTED = "APPROVAL_WANTED"
    RUN_FINISHED = "RUN_FINISHED"
