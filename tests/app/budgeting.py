"""What the tests of budgets share: the documents, and doing the usual things with a client."""

from __future__ import annotations

from typing import Any

from tests.app.costing import MODEL
from tests.clients_of_graph import Client, Json
from tests.talking import create

BUDGET = """
  id name subject window windowLength timezone limitUsd limitTokens warnAt action
  team { id } user { id } template { id }
  status {
    windowStart windowEnd spentUsd spentTokens remainingUsd remainingTokens usedUp freesAt unpriced user { id }
  }
"""
CREATE = f"mutation ($input: CreateBudgetInput!) {{ createBudget(input: $input) {{ budget {{ {BUDGET} }} }} }}"
UPDATE = f"mutation ($input: UpdateBudgetInput!) {{ updateBudget(input: $input) {{ budget {{ {BUDGET} }} }} }}"
REMOVE = "mutation ($input: RemoveBudgetInput!) { removeBudget(input: $input) { budgetId } }"
LIST = f"query ($subjects: [BudgetSubject!]) {{ budgets(subjects: $subjects) {{ totalCount nodes {{ {BUDGET} }} }} }}"
STATUS = """
query ($id: ID!, $user: ID) {
  node(id: $id) { ... on Budget { status(userId: $user) { spentUsd remainingUsd usedUp freesAt user { id } } } }
}
"""
HISTORY = """
query ($id: ID) {
  budgetHistory(budgetId: $id) {
    nodes { kind threshold spentUsd spentTokens windowStart runId budgetId budget { name } user { id } }
  }
}
"""
START = "mutation ($input: StartSessionInput!) { startSession(input: $input) { session { id } } }"
INBOX = "{ viewer { notifications { nodes { kind title body session { id } subject { id } } } } }"


async def budget(client: Client, **given: Any) -> Json:
    """A budget; what is left out is that of the organisation for a day, which refuses."""
    input_ = {
        "name": "Runs",
        "subject": "ORGANIZATION",
        "window": "DAYS",
        "action": "REFUSE",
        **({} if "limitTokens" in given else {"limitUsd": "1"}),
    } | given
    return (await client(CREATE, input=input_))["createBudget"]["budget"]  # type: ignore[no-any-return]


async def status(client: Client, id_: str, user: str | None = None) -> Json:
    return (await client(STATUS, id=id_, user=user))["node"]["status"]  # type: ignore[no-any-return]


async def told(client: Client) -> list[Json]:
    nodes = (await client(INBOX))["viewer"]["notifications"]["nodes"]
    return [node for node in nodes if node["kind"] == "BUDGET"]


async def kinds(client: Client, id_: str) -> list[str]:
    return [event["kind"] for event in (await client(HISTORY, id=id_))["budgetHistory"]["nodes"]]


async def model_session(client: Client, **more: Any) -> str:
    return (await create(client, runtime="pydantic_ai", model=MODEL, **more))["id"]  # type: ignore[no-any-return]


async def started(client: Client, template: str) -> str:
    """A session from a template."""
    return (await client(START, input={"templateId": template}))["startSession"]["session"]["id"]  # type: ignore[no-any-return]
