"""One subscription for those who work together: events, activity, presence, on one cursor."""

from __future__ import annotations

import asyncio

import pytest

from tests.app.conftest import People
from tests.clients_of_graph import Json, Refused
from tests.talking import UPDATE, asks, create, decide, ended, following, history, move, named, send, texts
from tests.together import being_in

pytestmark = pytest.mark.anyio

QUEUE = """
query ($id: ID!) {
  session(id: $id) {
    queue { totalCount nodes { number status startedBy { name } messages(first: 1) { nodes { text } } } }
  }
}
"""


async def test_each_event_comes_once_with_what_it_is_in_the_feed(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    async with being_in(client, session, "mine") as mine:
        await send(client, session, '/tool write_file {"path": "a", "content": "b"}')
        await mine.until_event(asks)
        [approval] = (await history(client, session))["pendingApprovals"]["nodes"]
        await decide(people.admin.client, approval["id"], "APPROVE")
        await mine.until_event(ended)
        assert [event["seq"] for event in mine.stored] == list(range(1, len(mine.stored) + 1))
        activities = [item["activity"] for item in mine.items if item.get("activity")]
        assert [activity["kind"] for activity in activities] == [
            "SESSION_CREATED",
            "SESSION_STATUS_CHANGED",
            "MESSAGE_SENT",
            "RUN_STARTED",
            "TOOL_CALLED",
            "APPROVAL_REQUESTED",
            "SESSION_STATUS_CHANGED",
            "APPROVAL_DECIDED",
            "SESSION_STATUS_CHANGED",
            "RUN_STARTED",
            "TOOL_RETURNED",
            "AGENT_REPLIED",
            "RUN_ENDED",
        ], activities
        decided = next(activity for activity in activities if activity["kind"] == "APPROVAL_DECIDED")
        assert (decided["actorKind"], decided["actor"]["name"]) == ("HUMAN", people.admin.name)
        replied = next(activity for activity in activities if activity["kind"] == "AGENT_REPLIED")
        assert (replied["actorKind"], replied["actor"]["name"]) == ("AGENT", people.member.name)
        whole = mine.events
    # The same as the plain stream, from any cursor of either.
    async with following(client, session) as plain:
        events = await plain.until(lambda event: event["seq"] == whole[-1]["seq"])
    assert [event["seq"] for event in events if event["type"] != "TEXT_MESSAGE_CONTENT"] == list(
        range(1, whole[-1]["seq"] + 1)
    )
    for cursors in (whole, events):
        cut = len(cursors) // 2
        async with being_in(client, session, "again", after=cursors[cut]["cursor"]) as rest:
            await rest.until_event(lambda event: event["seq"] == whole[-1]["seq"])
            together = [*cursors[: cut + 1], *rest.events]
            assert [e["seq"] for e in together if e["type"] != "TEXT_MESSAGE_CONTENT"] == list(
                range(1, whole[-1]["seq"] + 1)
            )
            assert texts(together) == texts(whole)


async def test_presence_keeps_the_last_events_cursor(people: People) -> None:
    session = (await create(people.member.client))["id"]
    async with being_in(people.member.client, session, "mine") as mine:
        await mine.until_event(lambda event: event["seq"] == 1)
        async with being_in(people.admin.client, session, "theirs", after=mine.cursor) as theirs:
            [first] = await theirs.until(lambda _: True)
            assert first["presenceCursor"] == mine.cursor
            assert {one["clientId"] for one in first["participants"]} == {"mine", "theirs"}
            [joined] = (await mine.until(lambda item: item.get("joined")))[-1:]
            assert (joined["presenceCursor"], joined["participants"]) == (mine.cursor, None)


async def test_both_see_the_queue_of_what_two_sent_at_once(people: People) -> None:
    session = (await create(people.member.client))["id"]
    await move(people.member.client, "pauseSession", session)
    async with (
        being_in(people.member.client, session, "mine") as mine,
        being_in(people.admin.client, session, "theirs") as theirs,
    ):
        sent = await asyncio.gather(
            *(send(people.member.client, session, f"mine {n}") for n in range(3)),
            *(send(people.admin.client, session, f"theirs {n}") for n in range(3)),
        )
        for being in (mine, theirs):
            for _ in range(6):
                await being.until_event(named("run.queued"))
        assert _queued(mine.events) == _queued(theirs.events)
        assert [number for number, _ in _queued(mine.events)] == [1, 2, 3, 4, 5, 6]
        by_number = {one["run"]["number"]: one["message"]["text"] for one in sent}
        for person in (people.member, people.admin):
            queue = (await person.client(QUEUE, id=session))["session"]["queue"]
            assert queue["totalCount"] == 6
            assert [
                (run["number"], run["messages"]["nodes"][0]["text"], run["startedBy"]["name"]) for run in queue["nodes"]
            ] == [
                (
                    number,
                    by_number[number],
                    people.member.name if by_number[number].startswith("mine") else people.admin.name,
                )
                for number in range(1, 7)
            ]
        await move(people.member.client, "resumeSession", session)
        for _ in range(6):
            await mine.until_event(ended)
    queue = (await people.member.client(QUEUE, id=session))["session"]["queue"]
    assert queue["nodes"] == []


def _queued(events: list[Json]) -> list[tuple[int, str]]:
    return [(e["data"]["number"], e["data"]["runId"]) for e in events if e["name"] == "quarterdeck.run.queued"]


async def test_it_ends_with_the_access_and_so_does_being_there(people: People) -> None:
    owner = people.member.client
    session = (await create(owner, visibility="ORGANIZATION"))["id"]
    async with being_in(people.colleague.client, session, "theirs") as theirs:
        await theirs.until_event(lambda event: event["seq"] == 1)
        await owner(UPDATE, input={"sessionId": session, "visibility": "PRIVATE"})
        await send(owner, session, "between us")
        with pytest.raises(Refused, match="NOT_FOUND"):
            await theirs.until(lambda _: False)
        assert "between us" not in str(theirs.items)
