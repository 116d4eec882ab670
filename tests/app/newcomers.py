"""Users of a test's own, made through the graph: their inboxes have what the test did, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from tests.clients_of_graph import Client

_ACCOUNT = """
mutation ($input: CreateServiceAccountInput!) { createServiceAccount(input: $input) { user { id name } } }
"""
_TOKEN = """
mutation ($input: CreateAccessTokenInput!) { createAccessToken(input: $input) { secret } }
"""


@dataclass(frozen=True)
class Newcomer:
    """A service account with a token: in all that follows, somebody like everybody else."""

    id: str
    name: str
    client: Client


async def newcomer(admin: Client, role: str = "MEMBER") -> Newcomer:
    """Somebody new in the admin's organisation."""
    name = f"Newcomer {uuid4().hex[:6]}"
    user = (await admin(_ACCOUNT, input={"name": name, "role": role}))["createServiceAccount"]["user"]
    made = await admin(_TOKEN, input={"name": "tests", "userId": user["id"]})
    return Newcomer(user["id"], user["name"], Client(admin.url, made["createAccessToken"]["secret"]))
