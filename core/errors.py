"""Errors that a client can act on. Everything else is masked at the edge of the graph."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """Machine-readable reason of an error, in `extensions.code`."""

    BAD_INPUT = "BAD_INPUT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    TOO_LARGE = "TOO_LARGE"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    TIMEOUT = "TIMEOUT"
    UNAVAILABLE = "UNAVAILABLE"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    PERSISTED_QUERY_NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"
    INTERNAL = "INTERNAL"


def new_error_id() -> str:
    """What a masked error says to its reader, and the log beside its reason."""
    return f"err_{secrets.token_hex(8)}"


class QuarterdeckError(Exception):
    """An error whose message is safe and useful to show to the caller.

    `field` names the input field at fault in the graph's spelling (`options.maxTurns`);
    `details` are further `extensions` members.
    """

    code = ErrorCode.INTERNAL

    def __init__(self, message: str, *, field: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.details = details

    def extensions(self) -> dict[str, Any]:
        """The `extensions` of the GraphQL error, without the `errorId` the edge adds."""
        found: dict[str, Any] = {"code": self.code.value}
        if self.field is not None:
            found["field"] = self.field
        return found | self.details


class BadInput(QuarterdeckError):
    """The input does not make sense; `field` says where."""

    code = ErrorCode.BAD_INPUT

    @classmethod
    def of_fields(cls, problems: Sequence[tuple[str, str]]) -> BadInput:
        """One error for several bad fields: (field, message) pairs in `extensions.fields`."""
        return cls(
            "; ".join(f"{field}: {message}" for field, message in problems),
            fields=[{"field": field, "message": message} for field, message in problems],
        )


class Unauthenticated(QuarterdeckError):
    """There is no valid credential with the request."""

    code = ErrorCode.UNAUTHENTICATED


class Forbidden(QuarterdeckError):
    """The actor sees the object, or the operation, but may not do this."""

    code = ErrorCode.FORBIDDEN


class NotFound(QuarterdeckError):
    """It does not exist, or the actor may not know that it does."""

    code = ErrorCode.NOT_FOUND


class Conflict(QuarterdeckError):
    """Somebody else was first, or the same key was used for something else."""

    code = ErrorCode.CONFLICT


class IllegalTransition(Conflict):
    """A state machine refused a change of state; the message says why."""

    code = ErrorCode.ILLEGAL_TRANSITION


class TooLarge(QuarterdeckError):
    """A value is over its documented size."""

    code = ErrorCode.TOO_LARGE


class LimitExceeded(QuarterdeckError):
    """The operation is deeper, wider or costlier than allowed, or a quota is used up."""

    code = ErrorCode.LIMIT_EXCEEDED


class RateLimited(QuarterdeckError):
    """Too many attempts; `retryAfterSeconds` says when to come back."""

    code = ErrorCode.RATE_LIMITED


class Unavailable(QuarterdeckError):
    """A part that is needed is not configured or not reachable."""

    code = ErrorCode.UNAVAILABLE


class SlowConsumer(QuarterdeckError):
    """The client reads more slowly than events come; it should reconnect from `cursor`."""

    code = ErrorCode.SLOW_CONSUMER


class CursorExpired(QuarterdeckError):
    """The cursor is older than what is kept; read the current state and start again."""

    code = ErrorCode.CURSOR_EXPIRED


class PersistedQueryNotFound(QuarterdeckError):
    """No document is known by the id that was sent instead of one."""

    code = ErrorCode.PERSISTED_QUERY_NOT_FOUND
