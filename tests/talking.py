"""What the tests of sessions share: the documents, and doing the usual things with a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.clients_of_graph import Client, Json, Stream

SESSION = """
  id title status visibility runtime model systemPrompt permissionMode messageCount toolExecutionCount lastEventCursor
  createdAt updatedAt archivedAt owner { id name } creator { id name } labels { name value } mcpServers { id name }
  options {
    allowedTools disallowedTools maxTurns maxBudgetUsd environment workingDirectory fallbackModel effort
    maxThinkingTokens taskBudgetTokens outputSchema subagents { name description prompt tools model } skills
    settingSources betas extra
  }
"""
CREATE = "mutation ($input: CreateSessionInput!) { createSession(input: $input) { session {" + SESSION + "} } }"
UPDATE = "mutation ($input: UpdateSessionInput!) { updateSession(input: $input) { session {" + SESSION + "} } }"
GET = "query ($id: ID!) { session(id: $id) {" + SESSION + "} }"
SEND = """
mutation ($input: SendMessageInput!) {
  sendMessage(input: $input) { message { id text } run { id number status } session { id status } }
}
"""
DECIDE = """
mutation ($input: DecideApprovalInput!) {
  decideApproval(input: $input) { approval { id status note arguments decidedBy { name } } }
}
"""
INTERRUPT = "mutation ($input: InterruptRunInput!) { interruptRun(input: $input) { run { id status } } }"
FORK = """
mutation ($input: ForkSessionInput!) {
  forkSession(input: $input) {
    session { id title status forkedFrom { id } forkedAtMessageId messages { nodes { role text run { number } } } }
  }
}
"""
HISTORY = """
query ($id: ID!) {
  session(id: $id) {
    status messageCount toolExecutionCount
    messages(first: 100) { totalCount nodes { id role status text author { name } run { number } } }
    runs(first: 100) { nodes { id number status segment startedAt endedAt startedBy { name } error { code message } } }
    toolExecutions(first: 100) {
      nodes {
        id tool status arguments result structuredResult truncated errorKind errorMessage durationMs
        approval { id status decidedBy { name } }
      }
    }
    pendingApprovals { nodes { id reason toolExecution { tool arguments } } }
    usage { inputTokens costUsd costSource }
  }
}
"""
EVENTS = """
subscription ($id: ID!, $after: Cursor) {
  sessionEvents(sessionId: $id, after: $after) {
    cursor seq type name delta offset data actorKind
    run { id status } message { id } toolExecution { id } approval { id }
  }
}
"""
# As wide, and read without another query.
BARE_EVENTS = """
subscription ($id: ID!, $after: Cursor) {
  sessionEvents(sessionId: $id, after: $after) { cursor seq type name delta offset data }
}
"""


async def create(client: Client, **input: Any) -> Json:
    return (await client(CREATE, input=input))["createSession"]["session"]  # type: ignore[no-any-return]


async def send(client: Client, session: str, text: str, **more: Any) -> Json:
    return (await client(SEND, input={"sessionId": session, "text": text} | more))["sendMessage"]  # type: ignore[no-any-return]


async def move(client: Client, mutation: str, session: str) -> str:
    """The status after `pauseSession`, `archiveSession`, …"""
    document = f"mutation ($input: SessionInput!) {{ {mutation}(input: $input) {{ session {{ status }} }} }}"
    return (await client(document, input={"sessionId": session}))[mutation]["session"]["status"]  # type: ignore[no-any-return]


async def history(client: Client, session: str) -> Json:
    return (await client(HISTORY, id=session))["session"]  # type: ignore[no-any-return]


async def decide(client: Client, approval: str, decision: str, **more: Any) -> Json:
    given = {"approvalId": approval, "decision": decision} | more
    return (await client(DECIDE, input=given))["decideApproval"]["approval"]  # type: ignore[no-any-return]


def ended(event: Json) -> bool:
    """Whether a run has come to its last event."""
    return event["type"] == "RUN_ERROR" or (event["type"] == "RUN_FINISHED" and event["data"]["outcome"] != "interrupt")


def asks(event: Json) -> bool:
    """Whether a run has come to wait for a decision."""
    return event["type"] == "RUN_FINISHED" and event["data"]["outcome"] == "interrupt"


def named(name: str) -> Callable[[Json], bool]:
    return lambda event: event["name"] == f"quarterdeck.{name}"


class Following:
    """A live stream of a session's events, and all that came so far."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.events: list[Json] = []

    async def until(self, found: Callable[[Json], bool], within: float = 30.0) -> list[Json]:
        """The further events up to the first that is looked for."""
        before = len(self.events)
        async with asyncio.timeout(within):
            while True:
                self.events.append((await self._stream.next(within))["sessionEvents"])
                if found(self.events[-1]):
                    return self.events[before:]


@asynccontextmanager
async def following(
    client: Client, session: str, after: str | None = None, *, document: str = BARE_EVENTS
) -> AsyncIterator[Following]:
    async with client.stream(document, id=session, after=after) as stream:
        yield Following(stream)


async def talk(
    client: Client, session: str, text: str, until: Callable[[Json], bool] = ended, **more: Any
) -> list[Json]:
    """Send a message, and give what happened up to the end of its run."""
    cursor = (await client("query ($id: ID!) { session(id: $id) { lastEventCursor } }", id=session))["session"]
    async with following(client, session, cursor["lastEventCursor"]) as stream:
        await send(client, session, text, **more)
        return await stream.until(until)


def texts(events: list[Json]) -> dict[str, str]:
    """Each message's text, put together from its pieces, which must fit."""
    found: dict[str, str] = {}
    for event in events:
        if event["type"] == "TEXT_MESSAGE_CONTENT":
            message = event["data"]["messageId"]
            assert event["offset"] == len(found.get(message, "")), event
            found[message] = found.get(message, "") + event["delta"]
    return found


def said(events: list[Json]) -> str:
    """All that the agent said."""
    return "\n".join(texts(events).values())


async def eventually(condition: Callable[[], Any], within: float = 30.0) -> Any:
    """What the condition gives once it is true."""
    async with asyncio.timeout(within):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
        return found
