"""A session through the GraphQL clients that people use from JavaScript."""

from __future__ import annotations

import pytest

from tests.clients.conftest import Node
from tests.clients.stories import assert_nothing_missed_or_repeated
from tests.conftest import Server

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("client", ["graphql-ws", "urql", "apollo", "graphql-sse"])
async def test_session_with_a_reconnect_in_the_middle(server: Server, node: Node, client: str) -> None:
    steps = {line["step"]: line for line in await node(f"{client}.mjs", server.url, server.ws_url, server.token)}
    assert "@" in steps["viewer"]["viewer"]["user"]["email"]
    assert_nothing_missed_or_repeated(
        steps["before"]["events"], steps["after"]["events"], steps["again"]["events"], runs=2
    )
