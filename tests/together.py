"""What the tests of working together share: the documents, and being in a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.clients_of_graph import Client, Json, Stream

_PARTICIPANT = "{ userId clientId state messageId user { name } }"
WORKSPACE = """
subscription ($id: ID!, $after: Cursor, $client: String) {
  workspace(sessionId: $id, after: $after, clientId: $client) {
    __typename
    ... on WorkspaceEvent {
      cursor
      event { cursor seq type name delta offset data }
      activity { __typename kind seq actorKind actor { name } }
    }
    ... on WorkspacePresence { presenceCursor: cursor participants %(p)s joined %(p)s changed %(p)s left %(p)s }
    ... on WorkspaceDraft {
      drafts { userId clientId text cursor { messageId start end } user { name } }
    }
  }
}
""" % {"p": _PARTICIPANT}
UPDATE_PRESENCE = """
mutation ($input: UpdatePresenceInput!) {
  updatePresence(input: $input) { participant { userId clientId state messageId since } }
}
"""
PARTICIPANTS = "query ($id: ID!) { session(id: $id) { participants { userId clientId state messageId since } } }"


class Being:
    """Somebody's stream of a session, what came of it, and whom they see there."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.items: list[Json] = []
        self.here: dict[str, Json] = {}
        """By client's id."""

    @property
    def events(self) -> list[Json]:
        return [item["event"] for item in self.items if item["__typename"] == "WorkspaceEvent"]

    @property
    def stored(self) -> list[Json]:
        return [event for event in self.events if event["type"] != "TEXT_MESSAGE_CONTENT"]

    @property
    def cursor(self) -> str:
        return self.events[-1]["cursor"]  # type: ignore[no-any-return]

    @property
    def drafts(self) -> dict[str, Json]:
        """The last draft of each, by client's id."""
        return {draft["clientId"]: draft for item in self.items for draft in item.get("drafts", ())}

    async def until(self, found: Callable[[Json], Any], within: float = 20.0) -> list[Json]:
        """The further items up to the first that is looked for."""
        before = len(self.items)
        async with asyncio.timeout(within):
            while True:
                item = (await self._stream.next(within))["workspace"]
                self.items.append(item)
                self._look(item)
                if found(item):
                    return self.items[before:]

    async def until_event(self, found: Callable[[Json], Any], within: float = 20.0) -> Json:
        """The next event that is looked for."""
        items = await self.until(lambda item: "event" in item and found(item["event"]), within)
        return items[-1]["event"]  # type: ignore[no-any-return]

    async def until_here(self, found: Callable[[dict[str, Json]], Any], within: float = 20.0) -> None:
        """Read on until those who are there are as looked for."""
        if not found(self.here):
            await self.until(lambda _: found(self.here), within)

    async def for_a_while(self, seconds: float) -> list[Json]:
        """All that comes within some seconds."""
        before = len(self.items)
        try:
            await self.until(lambda _: False, seconds)
        except TimeoutError:
            pass
        return self.items[before:]

    def _look(self, item: Json) -> None:
        if item["__typename"] != "WorkspacePresence":
            return
        if item["participants"] is not None:
            self.here = {}
        for one in [*(item["participants"] or ()), *item["joined"], *item["changed"]]:
            self.here[one["clientId"]] = one
        for one in item["left"]:
            self.here.pop(one["clientId"], None)


@asynccontextmanager
async def being_in(
    client: Client, session: str, name: str | None = None, after: str | None = None
) -> AsyncIterator[Being]:
    """Follow a session, and be there."""
    async with client.stream(WORKSPACE, id=session, after=after, client=name) as stream:
        yield Being(stream)


async def update(client: Client, session: str, name: str, state: str = "VIEWING", **more: Any) -> Json:
    given = {"sessionId": session, "clientId": name, "state": state} | more
    return (await client(UPDATE_PRESENCE, input=given))["updatePresence"]["participant"]  # type: ignore[no-any-return]


async def participants(client: Client, session: str) -> list[Json]:
    return (await client(PARTICIPANTS, id=session))["session"]["participants"]  # type: ignore[no-any-return]
