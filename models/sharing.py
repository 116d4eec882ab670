"""Who has been given access to what."""

from __future__ import annotations

from enum import StrEnum


class AccessLevel(StrEnum):
    """What somebody may do in a session. Each level may do all that those before it may."""

    READ = "READ"
    WRITE = "WRITE"
    ADMIN = "ADMIN"

    def includes(self, other: AccessLevel) -> bool:
        """Whether this level may do all that the other may."""
        return _RANK[self] >= _RANK[other]


_RANK = {level: rank for rank, level in enumerate(AccessLevel)}
