"""Documents by their hash through Apollo Client's own link."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.clients.conftest import Node
from tests.conftest import Server

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_apollo_sends_a_document_once_and_then_its_hash(server: Server, node: Node, method: str) -> None:
    document = f"query Q{uuid4().hex} {{ viewer {{ user {{ role }} }} }}"
    first, second = await node("persisted.mjs", server.url, server.token, method, document)
    assert [(request["method"], request["text"]) for request in first["requests"]] == [(method, False), ("POST", True)]
    assert [(request["method"], request["text"]) for request in second["requests"]] == [(method, False)]
    assert first["data"]["viewer"]["user"] == second["data"]["viewer"]["user"]
    assert first["data"]["viewer"]["user"]["role"] in ("OWNER", "ADMIN")
