"""Reading GraphQL requests, and choosing what to answer with. Source: GraphQL over HTTP, stage 2 draft."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from functools import lru_cache
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.types import Receive

from core.errors import BadInput, QuarterdeckError, TooLarge
from schema.bodies import Body, refusal
from schema.execution import Request
from schema.persisted import Reference
from services.documents import check_identifier

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
EVENTS = "text/event-stream"
HTML = "text/html"

LARGEST_BODY = 2_000_000
DEEPEST_VARIABLE = 100
"""Levels of lists and objects in a variable."""


class HttpProblem(Exception):
    """A request that is answered without looking at its document."""

    def __init__(self, status: int, error: QuarterdeckError, headers: dict[str, str] | None = None) -> None:
        super().__init__(error.message)
        self.status = status
        self.body: Body = refusal(error)
        self.headers = headers or {}


class Left(Exception):
    """The client went away before it had sent its request, or had its answer."""


@lru_cache(512)
def accepted(header: str | None, *, page: bool) -> str | None:
    """The response's media type for an `Accept` header; None where there is none that both sides know.

    HTML is offered only where there is a `page`. Without a header it is application/json, as clients from before
    the specification expect.
    """
    if not header:
        return JSON
    offers = (JSON, GRAPHQL, EVENTS, HTML) if page else (JSON, GRAPHQL, EVENTS)
    best, best_quality = None, 0.0
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        offered = {"*/*": JSON, "application/*": JSON, "text/*": EVENTS}.get(name, name)
        if offered in offers and quality > best_quality:
            best, best_quality = offered, quality
    return best


async def read_post(content_type: str, receive: Receive) -> Request:
    """The request in a POST's body; raises HttpProblem, and Left."""
    refused = _content_problem(content_type)
    if refused is not None:
        raise HttpProblem(415, BadInput(refused), {"accept-post": JSON})
    try:
        given = orjson.loads(await _body(receive))
    except orjson.JSONDecodeError as error:
        raise HttpProblem(400, BadInput(f"The body is not JSON: {error}.")) from None
    if isinstance(given, list):
        raise HttpProblem(400, BadInput("Batches are not served: send one operation a request."))
    return checked(given)


def read_get(query_string: bytes) -> Request:
    """The request in a GET's query string; raises HttpProblem."""
    given: dict[str, Any] = dict(QueryParams(query_string))
    for name in ("variables", "extensions"):
        if given.get(name):
            try:
                given[name] = orjson.loads(given[name])
            except orjson.JSONDecodeError:
                raise HttpProblem(400, BadInput(f"{name} is not JSON.", field=name)) from None
        else:
            given.pop(name, None)
    return checked(given)


def checked(given: Any) -> Request:
    """The parameters, of the right types; raises HttpProblem."""
    if not isinstance(given, dict):
        raise HttpProblem(400, BadInput("The request is not a JSON object."))
    query, variables = given.get("query"), given.get("variables")
    reference = _reference(given)
    if query is None and reference is not None:
        query = ""
    elif not isinstance(query, str) or not query:
        raise HttpProblem(400, BadInput("`query` is missing: the GraphQL document as a string.", field="query"))
    if variables is not None and not isinstance(variables, dict):
        raise HttpProblem(400, BadInput("`variables` is not a JSON object.", field="variables"))
    name = given.get("operationName")
    if name is not None and not isinstance(name, str):
        raise HttpProblem(400, BadInput("`operationName` is not a string.", field="operationName"))
    if variables and not all(map(_is_plain, variables.values())):
        _check_variables(variables)
    return Request(query, variables or {}, name or None, reference)


def _reference(given: dict[str, Any]) -> Reference | None:
    """How the document is named, beside its text or instead of it."""
    identifier, extensions = given.get("documentId"), given.get("extensions")
    if extensions is not None and not isinstance(extensions, dict):
        raise HttpProblem(400, BadInput("`extensions` is not a JSON object.", field="extensions"))
    persisted = extensions.get("persistedQuery") if extensions else None
    if identifier is not None:
        return Reference(_identifier(identifier, "documentId"))
    if persisted is None:
        return None
    field = "extensions.persistedQuery"
    if not isinstance(persisted, dict) or persisted.get("version") != 1:
        raise HttpProblem(400, BadInput('Unsupported persisted query version: {"version": 1} is known.', field=field))
    return Reference(_identifier(persisted.get("sha256Hash"), f"{field}.sha256Hash"), automatic=True)


def _identifier(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise HttpProblem(400, BadInput(f"`{field}` is not a string.", field=field))
    try:
        return check_identifier(value, field=field)
    except BadInput as error:
        raise HttpProblem(400, error) from None


def _is_plain(value: Any) -> bool:
    """Whether there is nothing to look for in a value."""
    return not isinstance(value, dict | list) and not (isinstance(value, str) and "\0" in value)


def _check_variables(variables: dict[str, Any]) -> None:
    """Refuses what is too deep to be worked on, and NUL characters, which PostgreSQL's text cannot hold."""
    place: list[Any] = []
    inside: list[Iterator[tuple[Any, Any]]] = [iter(variables.items())]
    while inside:
        for name, value in inside[-1]:
            if isinstance(value, str) and "\0" in value:
                raise _with_nul(place, name)
            if not isinstance(value, dict | list):
                continue
            if len(inside) > DEEPEST_VARIABLE:
                message = f"${place[0][:60]} is nested too deeply: at most {DEEPEST_VARIABLE} levels are taken."
                raise HttpProblem(400, BadInput(message, field=place[0][:60]))
            if isinstance(value, dict) and any("\0" in key for key in value):
                raise _with_nul(place, name)
            place.append(name)
            inside.append(iter(value.items()) if isinstance(value, dict) else enumerate(value))
            break
        else:
            inside.pop()
            del place[-1:]


def _with_nul(place: list[Any], name: Any) -> HttpProblem:
    field = ".".join(str(part) for part in (*place, name))
    return HttpProblem(400, BadInput("Text may not hold the character U+0000: it cannot be stored.", field=field))


@lru_cache(512)
def _content_problem(header: str) -> str | None:
    """What is wrong with a content type."""
    content_type = Message()
    content_type["content-type"] = header
    if content_type.get_content_type() != JSON:
        return "Send the request as application/json."
    if content_type.get_content_charset("") not in ("", "utf-8", "utf8"):
        return "Send JSON in UTF-8."
    return None


async def _body(receive: Receive) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Left
    body: bytes = message.get("body", b"")
    if not message.get("more_body") and len(body) <= LARGEST_BODY:
        return body
    parts = bytearray(body)
    while True:
        if len(parts) > LARGEST_BODY:
            raise HttpProblem(413, TooLarge(f"A request has at most {LARGEST_BODY} bytes."))
        if not message.get("more_body"):
            return bytes(parts)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Left
        parts += message.get("body", b"")
