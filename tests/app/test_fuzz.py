"""Whatever comes through the door of the graph is answered with well-formed JSON and a code, and harms nobody.

A process of its own: what others send, and what they may still send, is not to be disturbed.
"""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.errors import ErrorCode
from schema.errors import LONGEST_MESSAGE
from tests.conftest import Server, environment_for, free_port, running, wait_until_ready
from tests.databases import TestServer
from tests.talking import CREATE, GET, HISTORY, SEND

JSON, GRAPHQL = "application/json", "application/graphql-response+json"
CODES = frozenset(ErrorCode) - {ErrorCode.INTERNAL}
FEW = settings(
    max_examples=int(os.environ.get("QUARTERDECK_TEST_EXAMPLES", "60")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
MOST_GROWTH_MIB = 250
"""The bound of docs/documents.md for documents that clients sent, and their plans, as memory."""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def process(postgres: TestServer, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A web process with nobody else."""
    url = postgres.create_database(template=migrated)
    home, token, port = Path(tmp_path_factory.mktemp("fuzz")), secrets.token_urlsafe(24), free_port()
    with ExitStack() as stack:
        found = Server(port, token, home, environment_for(url, home, port, token))
        found.command("migrate")
        found.processes.append(stack.enter_context(running("web", found.environment, home)))
        wait_until_ready(found, found.processes[0])
        yield found
        assert found.processes[0].poll() is None
    postgres.drop_database(url)


class Asker:
    def __init__(self, server: Server) -> None:
        self.server = server
        self._http = httpx.Client(timeout=60, headers={"authorization": f"Bearer {server.token}"})

    def post(self, content: bytes, *, accept: str = GRAPHQL, **headers: str) -> httpx.Response:
        given = {"content-type": JSON, "accept": accept} | headers
        return checked(self._http.post(self.server.url, content=content, headers=given))

    def ask(self, document: str, variables: Any = None, **more: Any) -> Any:
        body = {"query": document, "variables": variables} | more
        return self.post(orjson.dumps(body)).json()

    def get(self, **parameters: str) -> httpx.Response:
        return checked(self._http.get(self.server.url, params=parameters, headers={"accept": GRAPHQL}))


def checked(response: httpx.Response) -> httpx.Response:
    """A response as the specification has them: JSON, a status that fits, errors with a code that is no accident."""
    body = response.json()
    assert response.headers["content-type"].split(";")[0] in (JSON, GRAPHQL)
    assert isinstance(body, dict)
    assert body.keys() <= {"data", "errors", "extensions"}
    errors = body.get("errors")
    if errors is None:
        assert response.status_code == 200
        assert isinstance(body["data"], dict)
        return response
    assert errors
    for error in errors:
        assert error["extensions"]["code"] in CODES, error
        assert isinstance(error["message"], str)
        assert error["message"]
        assert len(error["message"]) <= LONGEST_MESSAGE
    if "data" in body:
        assert response.status_code == 200
    elif response.headers["content-type"].startswith(GRAPHQL):
        assert response.status_code in (400, 401, 403, 405, 413, 415), response.status_code
    return response


@pytest.fixture(scope="module")
def asker(process: Server) -> Asker:
    return Asker(process)


# -- bytes and JSON


@FEW
@given(body=st.binary(max_size=300))
@example(b"")
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"query":' * 500)
@example(b'{"query": "{ a }"' + b" " * 2_100_000)
@example(b'{"query": 1e999}')
@example(b'{"query": "\\ud800"}')
@example(b'{"query": "{ __typename }", "query": 5}')
@example(b"null")
@example(b"[]")
@example(b"[{}]")
def test_bytes(asker: Asker, body: bytes) -> None:
    response = asker.post(body)
    assert "errors" in response.json()


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@FEW
@given(
    body=st.dictionaries(
        st.sampled_from(["query", "variables", "operationName", "extensions", "documentId", "persistedQuery", "id"]),
        anything | st.sampled_from(["{ __typename }", "", {"persistedQuery": {"version": 1, "sha256Hash": "x"}}]),
        max_size=6,
    )
)
def test_requests_of_the_wrong_shape(asker: Asker, body: Any) -> None:
    try:
        content = orjson.dumps(body)
    except TypeError:  # a lone surrogate, or a number over 64 bits
        return
    for accept in (GRAPHQL, JSON):
        asker.post(content, accept=accept)


@FEW
@given(
    parameters=st.dictionaries(
        st.sampled_from(["query", "variables", "operationName", "extensions", "documentId"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
        | st.sampled_from(["{ __typename }", "{}", "[]"]),
    )
)
def test_requests_by_get(asker: Asker, parameters: dict[str, str]) -> None:
    asker.get(**parameters)


# -- documents


@FEW
@given(data=st.data())
def test_valid_documents_with_a_change(asker: Asker, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([GET, HISTORY, CREATE, SEND]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 12))
        pieces = st.text(string.printable, max_size=5) | st.sampled_from(
            [
                "{",
                "}",
                "...",
                "@skip(if: true)",
                "$x",
                '"""',
                "\\u0000",
                "# ",
                "fragment F on Query",
                "null",
                "\ufeff",
                "é😀",
            ]
        )
        text = text[:start] + data.draw(pieces) + text[end:]
    asker.ask(text, {"id": "ses_01k7m2v3w4x5y6z7a8b9c0d1e2", "input": {}})


def deep(levels: int) -> str:
    return "{ sessions { nodes { " + "forkedFrom { " * levels + "id" + " }" * levels + " } } }"


ODD = {
    "deep": deep(50),
    "very deep": deep(900),
    "too deep to parse": "{" * 50_000,
    "deep value": '{ session(id: "x" a: ' + "[" * 900 + "]" * 900 + ") { id } }",
    "wide": "{ viewer { user { " + "id " * 3900 + "} } }",
    "aliased": "{ " + " ".join(f"a{n}: viewer {{ user {{ id }} }}" for n in range(400)) + " }",
    "a fragment in itself": "{ ...F } fragment F on Query { ...F }",
    "fragments in a circle": "{ ...F0 } "
    + " ".join(f"fragment F{n} on Query {{ ...F{(n + 1) % 100} }}" for n in range(100)),
    "fragments that double": "{ ...F0 } "
    + " ".join(f"fragment F{n} on Query {{ a{n}: __typename ...F{n + 1} ...F{n + 1} }}" for n in range(60))
    + " fragment F60 on Query { viewer { user { id } } }",
    "the same over and over": "{ " + "sessions { nodes { owner { id } } } " * 390 + "}",
    "many directives": "{ viewer " + "@skip(if: false) " * 600 + "{ user { id } } }",
    "many operations": " ".join(f"query Q{n} {{ __typename }}" for n in range(600)),
    "many variables": "query (" + " ".join(f"$v{n}: ID" for n in range(900)) + ") { __typename }",
    "huge": "#" + "x" * 300_000 + "\n{ __typename }",
    "huge string": '{ session(id: "' + "x" * 190_000 + '") { id } }',
    "huge name": "{ " + "x" * 190_000 + " }",
    "huge number": "{ sessions(first: " + "9" * 5_000 + ") { totalCount } }",
    "huge default": "query ($n: Int = " + "9" * 5_000 + ") { sessions(first: $n) { totalCount } }",
    "huge id": "{ session(id: " + "9" * 5_000 + ") { id } }",
    "huge variable name": "query ($" + "v" * 100_000 + ": ID) { __typename }",
    "a subscription": "subscription { sessionChanges { kind } }",
    "no operation": "fragment F on Query { __typename }",
    "type system": "type Query { a: Int }",
    "two of a name": "query A { __typename } query A { __typename }",
    "a variable in itself": "query ($a: [ID!]! = $a) { __typename }",
    "introspection within itself": "{ __schema { types { fields { type { fields { type { name } } } } } } }",
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_documents(asker: Asker, kind: str) -> None:
    body = asker.ask(ODD[kind])
    if kind not in ("introspection within itself", "many directives"):
        assert "errors" in body, str(body)[:300]
    assert asker.ask("{ __typename }") == {"data": {"__typename": "Query"}}


# -- variables


@FEW
@given(input_=anything, name=st.sampled_from(["input", "id", "other"]))
@example(input_={"sessionId": "ses_" + "z" * 26, "text": "x" * 1_000_000}, name="input")
@example(input_={"options": {"extra": {str(n): n for n in range(5000)}}}, name="input")
@example(input_={"title": "\0"}, name="input")
@example(input_=2**63, name="id")
def test_variables_of_any_type(asker: Asker, input_: Any, name: str) -> None:
    try:
        orjson.dumps(input_)
    except TypeError:
        return
    for document in (CREATE, SEND, GET):
        asker.ask(document, {name: input_})
        asker.ask(document, input_)


# -- floods


def memory_mib(server: Server) -> float:
    """Resident memory of the process."""
    status = Path(f"/proc/{server.processes[0].pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_flood_of_distinct_documents_takes_bounded_memory(process: Server, asker: Asker) -> None:
    fields = "id title status visibility runtime model systemPrompt createdAt updatedAt owner { id name }"
    before, answered = memory_mib(process), 0
    for number in range(100):
        mark = uuid4().hex
        spreads = " ".join(f"...F{n}{mark}" for n in range(20))
        fragments = " ".join(f"fragment F{n}{mark} on Session {{ {fields} }}" for n in range(20))
        filler = f"# {'x' * 30_000}\n" if number % 2 else ""
        body = asker.ask(f"{filler}query {{ sessions {{ nodes {{ {spreads} }} }} }} {fragments}")
        if "errors" in body:
            assert body["errors"][0]["extensions"]["code"] == ErrorCode.RATE_LIMITED
        else:
            answered += 1
    assert answered > 30
    for number in range(300):
        response = asker.post(orjson.dumps({"documentId": f"unknown-{number}"}))
        assert response.json()["errors"][0]["extensions"]["code"] == ErrorCode.PERSISTED_QUERY_NOT_FOUND
    assert memory_mib(process) - before < MOST_GROWTH_MIB


def test_nothing_was_a_failure_of_ours(process: Server, asker: Asker) -> None:
    assert asker.ask("{ __typename }") == {"data": {"__typename": "Query"}}
    assert "Traceback" not in process.log
    assert " ERROR" not in process.log
