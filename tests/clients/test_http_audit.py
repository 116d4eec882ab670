"""GraphQL over HTTP as its own audit suite checks it."""

from __future__ import annotations

import pytest

from tests.clients.conftest import Node
from tests.conftest import Server

pytestmark = pytest.mark.anyio


async def test_every_must_and_should_audit_passes(server: Server, node: Node) -> None:
    audits = await node("audit.mjs", server.url, server.token)
    failed = [audit for audit in audits if audit["status"] != "ok" and audit["name"].startswith(("MUST", "SHOULD"))]
    assert failed == []
    assert len(audits) > 50
