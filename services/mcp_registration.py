"""What an MCP server is registered with, and what it must look like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from core import net
from core.errors import BadInput, QuarterdeckError
from models.mcp_servers import McpTransport
from services.environment import check_variable_name, check_variable_value

PROTOCOL_VERSIONS = ("2026-07-28", "2025-11-25")

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}\Z")  # RFC 9110, 5.6.2
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]{0,8192}\Z")
_PROTOCOLS_OWN = frozenset(
    {"accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host"}
    | {"keep-alive", "last-event-id", "te", "trailer", "transfer-encoding", "upgrade"}
)
_MOST_PAIRS = 100
_MOST_ARGUMENTS = 100
_LONGEST_ARGUMENT = 4096
_LONGEST_DESCRIPTION = 2000
_LONGEST_URL = 2000

Problem = tuple[str, str]


@dataclass(frozen=True, slots=True)
class NewMcpServer:
    """A server to register. `environment` and `headers` are (name, value) pairs; values are secret."""

    name: str
    description: str = ""
    transport: McpTransport = McpTransport.STDIO
    command: Sequence[str] = ()
    url: str | None = None
    environment: Sequence[tuple[str, str]] = field(default=(), repr=False)
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    protocol_version: str | None = None
    stateless: bool = False
    timeout_seconds: float = 60.0
    check: bool = True
    """Connect right away and list the tools. A server that cannot be reached is registered all the same."""


def check_registration(new: NewMcpServer) -> None:
    """Raises BadInput with every problem and its place."""
    problems: list[Problem] = []
    if not _NAME.match(new.name):
        problems.append(
            ("name", "A name has up to 40 lower-case letters, digits and hyphens, and begins with a letter.")
        )
    problems += _text("description", new.description, _LONGEST_DESCRIPTION)
    problems += _of_stdio(new) if new.transport is McpTransport.STDIO else _of_http(new)
    if new.protocol_version is not None and new.protocol_version not in PROTOCOL_VERSIONS:
        problems.append(
            ("protocolVersion", f"There are {' and '.join(PROTOCOL_VERSIONS)}; leave it out, and the two sides agree.")
        )
    if not 1 <= new.timeout_seconds <= 600:
        problems.append(("timeoutSeconds", "A timeout is 1 to 600 seconds."))
    if problems:
        raise BadInput.of_fields(problems)


def check_url(url: str) -> tuple[str, int]:
    """Host and port of a server's URL. Raises BadInput."""
    if len(url) > _LONGEST_URL or not url.isprintable() or " " in url:
        raise BadInput(f"A URL has up to {_LONGEST_URL} characters, and no spaces among them.", field="url")
    return net.check_url(url, field="url")


def _of_stdio(new: NewMcpServer) -> list[Problem]:
    problems: list[Problem] = []
    if not new.command:
        problems.append(("command", "A STDIO server needs a command: the program and its arguments, each by itself."))
    elif len(new.command) > _MOST_ARGUMENTS:
        problems.append(("command", f"A command has at most {_MOST_ARGUMENTS} parts."))
    else:
        for index, part in enumerate(new.command):
            problems += _text(f"command.{index}", part, _LONGEST_ARGUMENT)
        if not new.command[0].strip():
            problems.append(("command.0", "This is the program to run; it cannot be empty."))
    if new.url is not None:
        problems.append(("url", "A STDIO server has no URL. Choose the transport STREAMABLE_HTTP to give one."))
    if new.headers:
        problems.append(("headers", "A STDIO server gets no headers. Give it environment variables."))
    return problems + _variables(new.environment)


def _of_http(new: NewMcpServer) -> list[Problem]:
    problems: list[Problem] = []
    if new.url is None:
        problems.append(("url", "A STREAMABLE_HTTP server needs a URL."))
    else:
        try:
            check_url(new.url)
        except BadInput as error:
            problems.append(("url", error.message))
    if new.command:
        problems.append(
            ("command", "A STREAMABLE_HTTP server is not started by us. Choose the transport STDIO for that.")
        )
    if new.environment:
        problems.append(("environment", "A STREAMABLE_HTTP server is not started by us. Give it headers."))
    return problems + _headers(new.headers)


def _variables(pairs: Sequence[tuple[str, str]]) -> list[Problem]:
    problems = _pairs("environment", [name for name, _ in pairs])
    for index, (name, value) in enumerate(pairs[:_MOST_PAIRS]):
        for what, text, check in (("name", name, check_variable_name), ("value", value, check_variable_value)):
            try:
                check(text)
            except QuarterdeckError as error:
                problems.append((f"environment.{index}.{what}", error.message))
    return problems


def _headers(pairs: Sequence[tuple[str, str]]) -> list[Problem]:
    problems = _pairs("headers", [name.lower() for name, _ in pairs])
    for index, (name, value) in enumerate(pairs[:_MOST_PAIRS]):
        if not _HEADER_NAME.match(name):
            problems.append((f"headers.{index}.name", "This is not a name of an HTTP header."))
        elif name.lower() in _PROTOCOLS_OWN or name.lower().startswith(("mcp-", "proxy-")):
            problems.append((f"headers.{index}.name", f"{name} is set by the protocol itself."))
        if not _HEADER_VALUE.match(value):
            problems.append(
                (f"headers.{index}.value", "A header's value is up to 8,192 characters of printable ASCII.")
            )
    return problems


def _pairs(place: str, names: Sequence[str]) -> list[Problem]:
    problems = []
    if len(names) > _MOST_PAIRS:
        problems.append((place, f"There are at most {_MOST_PAIRS}."))
    seen: set[str] = set()
    for index, name in enumerate(names[:_MOST_PAIRS]):
        if name in seen:
            problems.append((f"{place}.{index}.name", "This name is given twice."))
        seen.add(name)
    return problems


def _text(place: str, text: str, longest: int) -> list[Problem]:
    if len(text) > longest:
        return [(place, f"This has at most {longest} characters.")]
    if "\0" in text or _has_surrogates(text):
        return [(place, "This has characters that are not text: NUL, or half a surrogate pair.")]
    return []


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
