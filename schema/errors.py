"""What a client is told of an error: a code, the field at fault, and an id that is also in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import asyncpg
from graphql import GraphQLError

from core.errors import ErrorCode, QuarterdeckError, new_error_id

logger = logging.getLogger(__name__)

_DATABASE_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    ConnectionError,
)


LONGEST_MESSAGE = 2000
"""Characters: messages repeat what was sent, and what is sent may be long."""


def formatted(errors: Iterable[GraphQLError]) -> list[dict[str, Any]]:
    """The `errors` of a response. Unknown failures are masked; their reason is in the log under the errorId."""
    return [_one(error) for error in errors]


def as_graphql(error: QuarterdeckError) -> GraphQLError:
    """An error that belongs to no field."""
    return GraphQLError(error.message, original_error=error)


def _one(error: GraphQLError) -> dict[str, Any]:
    cause = _cause(error)
    error_id = new_error_id()
    body: dict[str, Any] = {"message": _shortened(error.message)}
    if error.locations:
        body["locations"] = [{"line": place.line, "column": place.column} for place in error.locations]
    if error.path is not None:
        body["path"] = error.path
    if isinstance(cause, QuarterdeckError):
        extensions = cause.extensions()
        body["message"] = _shortened(cause.message)
        logger.info("%s %s at %s: %s", error_id, cause.code, error.path, body["message"])
    elif cause is None:
        # The document or its variables are wrong: graphql-core says where.
        extensions = {"code": ErrorCode.BAD_INPUT.value} | (error.extensions or {})
        logger.info("%s request refused: %s", error_id, body["message"])
    elif isinstance(cause, asyncpg.CharacterNotInRepertoireError | asyncpg.UntranslatableCharacterError):
        extensions = {"code": ErrorCode.BAD_INPUT.value}
        body["message"] = "A text holds a NUL character, which cannot be stored. Leave it out."
        logger.info("%s NUL character refused at %s", error_id, error.path)
    elif isinstance(cause, asyncpg.QueryCanceledError):
        extensions = {"code": ErrorCode.TIMEOUT.value}
        body["message"] = "This took too long to read and was stopped. Ask for less: a smaller page, a shorter range."
        logger.warning("%s at %s: a statement took longer than allowed", error_id, error.path)
    elif isinstance(cause, _DATABASE_AWAY):
        extensions = {"code": ErrorCode.UNAVAILABLE.value}
        body["message"] = "The database cannot be reached at the moment. Try again shortly."
        logger.error("%s at %s", error_id, error.path, exc_info=cause)
    else:
        extensions = {"code": ErrorCode.INTERNAL.value}
        body["message"] = f"Something went wrong on our side. Tell your administrator the errorId {error_id}."
        logger.error("%s at %s", error_id, error.path, exc_info=cause)
    body["extensions"] = extensions | {"errorId": error_id}
    return body


def _shortened(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"


def _cause(error: GraphQLError) -> BaseException | None:
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if isinstance(cause, GraphQLError):
        return None
    # Tortoise wraps what the driver says.
    return cause.__cause__ if cause and isinstance(cause.__cause__, asyncpg.PostgresError | OSError) else cause
