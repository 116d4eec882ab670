"""Values that no field can take are refused at the door, with their place, whatever field they were meant for."""

from __future__ import annotations

import httpx
import pytest

from tests.clients_of_graph import Client
from tests.conftest import Server

pytestmark = pytest.mark.anyio

SESSIONS = "query($filter: SessionFilter) { sessions(filter: $filter) { totalCount } }"


async def test_nul_in_a_variable_is_refused_with_its_place(client: Client) -> None:
    refused = await client.refused(SESSIONS, filter={"titleContains": "a\0b"})
    assert refused.codes == ["BAD_INPUT"]
    assert refused.extensions["field"] == "filter.titleContains"


async def test_nul_in_a_list_or_a_json_value_is_refused(client: Client) -> None:
    create = "mutation($input: CreateSessionInput!) { createSession(input: $input) { session { id } } }"
    for input_, place in (
        ({"labels": [{"name": "a", "value": "\0"}]}, "input.labels.0.value"),
        ({"options": {"extra": {"deep": ["x", {"\0": 1}]}}}, "input.options.extra.deep.1"),
    ):
        refused = await client.refused(create, input=input_)
        assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], place)


async def test_nul_in_the_document_is_refused(client: Client) -> None:
    for escaped in ("\\u0000", "\\u{0}"):
        refused = await client.refused('{ sessions(filter: {titleContains: "a%s"}) { totalCount } }' % escaped)
        assert refused.codes == ["BAD_INPUT"]


async def test_text_about_nul_is_taken(client: Client) -> None:
    data = await client(SESSIONS, filter={"titleContains": "the escape \\u0000 of JSON"})
    assert data["sessions"]["totalCount"] == 0


async def test_a_lone_surrogate_is_no_json(server: Server) -> None:
    body = b'{"query": "{ viewer { __typename } }", "variables": {"x": "\\ud800"}}'
    async with httpx.AsyncClient() as http:
        response = await http.post(server.url, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_INPUT"


@pytest.mark.parametrize(
    "moment", ["2026-01-31T12:00:00", "yesterday", "", 5, "2026-13-01T00:00:00Z", "99999-01-01T00:00:00Z"]
)
async def test_a_time_without_zone_or_sense_is_refused(client: Client, moment: object) -> None:
    refused = await client.refused(SESSIONS, filter={"createdAfter": moment})
    assert refused.codes == ["BAD_INPUT"]
    assert "zone" in refused.message


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-1", "0", "1e400", "ten"])
async def test_a_budget_is_a_finite_amount(client: Client, amount: str) -> None:
    document = "mutation($input: CreateSessionInput!) { createSession(input: $input) { session { id } } }"
    refused = await client.refused(document, input={"options": {"maxBudgetUsd": amount}})
    assert refused.codes == ["BAD_INPUT"]


@pytest.mark.parametrize(
    "id_",
    [
        "",
        "x",
        "ses_",
        "ses_" + "0" * 25,
        "ses_" + "8" * 26,
        "ses_" + "u" * 26,
        "nope_" + "0" * 26,
        "ses_" * 5000,
        "sés_" + "0" * 26,
    ],
)
async def test_what_is_no_id_is_refused(client: Client, id_: str) -> None:
    for document in ("query($id: ID!) { node(id: $id) { id } }", "query($id: ID!) { session(id: $id) { id } }"):
        refused = await client.refused(document, id=id_)
        assert refused.codes == ["BAD_INPUT"]
        assert len(refused.message) < 300


@pytest.mark.parametrize(
    "after", ["", "x", "WzFd", "bnVsbA", "e30", "WyIyMDI2IiwgMV0", "A" * 10_000, "[]", "WyJhIiwiYiJd"]
)
async def test_what_is_no_cursor_is_refused(client: Client, after: str) -> None:
    refused = await client.refused(
        "query($after: String) { sessions(after: $after) { totalCount nodes { id } } }", after=after
    )
    assert refused.codes == ["BAD_INPUT"]


@pytest.mark.parametrize("first", [0, -1, 101, 2**31 - 1])
async def test_pages_have_a_size(client: Client, first: int) -> None:
    refused = await client.refused("query($n: Int) { sessions(first: $n) { nodes { id } } }", n=first)
    assert refused.codes in (["BAD_INPUT"], ["LIMIT_EXCEEDED"])
