"""Responses as clients get them: their shape, and their bytes."""

from __future__ import annotations

from typing import Any

import orjson
from graphql import ExecutionResult, GraphQLError

from core.errors import QuarterdeckError
from schema.errors import as_graphql, formatted

Body = dict[str, Any]


def body_of(result: ExecutionResult) -> Body:
    """The response to an operation that was executed."""
    body: Body = {"data": result.data}
    if result.errors:
        body["errors"] = formatted(result.errors)
    return body


def refusal(error: QuarterdeckError) -> Body:
    """The response to an operation that was not executed."""
    return {"errors": formatted([as_graphql(error)])}


def failure(error: Exception) -> Body:
    """The response where something failed that no field can be blamed for. Its reason is in the log."""
    return {"errors": formatted([GraphQLError(str(error), original_error=error)])}


def as_json(value: dict[str, Any]) -> bytes:
    """Raises TypeError for what JSON cannot hold, or nobody could read: over 254 levels, or a number over 64 bits."""
    return orjson.dumps(value, default=str)


def encoded(body: Body) -> bytes:
    """A response's bytes; where it has none, those of the failure."""
    try:
        return as_json(body)
    except TypeError as error:
        return as_json(failure(error))
