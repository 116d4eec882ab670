"""Scores through the graph: typed values by people and evaluators."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.ids import encode, new_id
from tests.annotating import RECORD, SCORE
from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.talking import create, following, history, named, talk

pytestmark = pytest.mark.anyio

SCORES = "query ($filter: ScoreFilter) { scores(filter: $filter) { totalCount nodes {" + SCORE + "} } }"
DELETE = "mutation ($input: DeleteScoreInput!) { deleteScore(input: $input) { score { id name } } }"


async def a_conversation(client: Client) -> tuple[str, Json]:
    session = (await create(client, visibility="ORGANIZATION"))["id"]
    await talk(client, session, "playbook: p\nsteps:\n- say: 'Done.'")
    return session, await history(client, session)


async def record(client: Client, session: str, name: str, **more: Any) -> Json:
    given = {"sessionId": session, "name": name} | more
    return (await client(RECORD, input=given))["recordScore"]["score"]  # type: ignore[no-any-return]


async def names(client: Client, **filter_: Any) -> list[str]:
    return [node["name"] for node in (await client(SCORES, filter=filter_))["scores"]["nodes"]]


async def test_everything_can_be_scored_with_every_type(people: People) -> None:
    client = people.member.client
    session, told = await a_conversation(client)
    message, run = told["messages"]["nodes"][-1]["id"], told["runs"]["nodes"][0]["id"]
    number = await record(client, session, "quality", number=0.75, messageId=message, comment="Short.")
    boolean = await record(client, session, "correct", boolean=False, runId=run)
    category = await record(client, session, "tone", category="friendly")
    assert (number["type"], number["number"], number["boolean"], number["category"]) == ("NUMERIC", 0.75, None, None)
    assert (boolean["type"], boolean["boolean"], boolean["run"]) == ("BOOLEAN", False, {"id": run})
    assert (category["type"], category["category"], category["source"]) == ("CATEGORICAL", "friendly", "HUMAN")
    assert (number["message"], number["comment"], number["author"]) == (
        {"id": message},
        "Short.",
        {"id": people.member.id},
    )
    document = """query ($id: ID!) { session(id: $id) {
      scores { totalCount nodes { name } } messages { nodes { scores { nodes { name } } } }
      runs { nodes { scores { nodes { name } } } } } }"""
    read = (await people.viewer.client(document, id=session))["session"]
    assert [node["name"] for node in read["scores"]["nodes"]] == ["quality", "correct", "tone"]
    assert read["messages"]["nodes"][-1]["scores"]["nodes"] == [{"name": "quality"}]
    assert read["runs"]["nodes"][0]["scores"]["nodes"] == [{"name": "correct"}]
    assert await names(client, sessionIds=[session], types=["NUMERIC"], atLeast=0.75) == ["quality"]
    assert await names(client, sessionIds=[session], atLeast=0.76) == []
    assert await names(client, sessionIds=[session], names=["tone", "correct"]) == ["tone", "correct"]
    assert (await client("query ($id: ID!) { node(id: $id) { __typename } }", id=number["id"]))["node"]


async def test_the_next_score_takes_the_place_of_the_same_judge(people: People) -> None:
    member, colleague = people.member.client, people.colleague.client
    session, _ = await a_conversation(member)
    async with following(member, session) as stream:
        first = await record(member, session, "quality", number=1)
        again = await record(member, session, "quality", category="good")
        other = await record(colleague, session, "quality", number=3)
        machine = await record(colleague, session, "quality", boolean=True, evaluator="judge-v2")
        replaced = await record(member, session, "quality", boolean=False, evaluator="judge-v2")
        events = [
            event["data"]["scoreId"]
            for event in await stream.until(lambda event: (event["data"] or {}).get("scoreId") == machine["id"])
            if event["name"] == "quarterdeck.score.recorded"
        ]
    assert (again["id"], again["type"], again["number"]) == (first["id"], "CATEGORICAL", None)
    assert replaced["id"] == machine["id"]
    assert len({first["id"], other["id"], machine["id"]}) == 3
    assert events == [first["id"], first["id"], other["id"], machine["id"]]
    assert len(await names(member, sessionIds=[session])) == 3
    assert len(await names(member, sessionIds=[session], sources=["EVALUATOR"], evaluators=["judge-v2"])) == 1
    assert len(await names(member, sessionIds=[session], authorIds=[people.member.id])) == 2


async def test_an_evaluator_s_score_is_replaced_by_whoever_recorded_it_or_administers_the_session(
    people: People,
) -> None:
    member, colleague = people.member.client, people.colleague.client
    session, _ = await a_conversation(member)
    judged = {"evaluator": "judge-v2"}
    own = await record(member, session, "quality", number=1, **judged)
    given = {"sessionId": session, "name": "quality", "number": 0, "idempotencyKey": "a-key-of-a-colleague"}
    refused = await colleague.refused(RECORD, input=given | judged)
    assert (refused.codes, refused.extensions["field"]) == (["FORBIDDEN"], "evaluator")
    theirs = await record(colleague, session, "correct", number=1, **judged)
    assert (await record(colleague, session, "correct", number=2, **judged))["id"] == theirs["id"]
    # Whose session it is has the last word, and from then on the score is theirs.
    assert (await record(member, session, "correct", number=3, **judged))["author"] == {"id": people.member.id}
    given["name"] = "correct"
    assert (await colleague.refused(RECORD, input=given | judged)).codes == ["FORBIDDEN"]
    assert (await record(member, session, "quality", number=2, **judged))["id"] == own["id"]
    assert (await record(colleague, session, "quality", number=4, evaluator="judge-v3"))["id"] != own["id"]


async def test_judges_who_score_at_once_leave_one_score_each(people: People) -> None:
    session, _ = await a_conversation(people.member.client)
    clients = [people.member.client, people.colleague.client] * 4
    await asyncio.gather(*(record(client, session, "quality", number=n) for n, client in enumerate(clients)))
    assert await names(people.member.client, sessionIds=[session]) == ["quality", "quality"]


async def test_a_score_is_taken_away_by_its_author_or_an_administrator(people: People) -> None:
    member, colleague = people.member.client, people.colleague.client
    session, _ = await a_conversation(member)
    key = {"idempotencyKey": "one-and-the-same-key"}
    theirs = await record(colleague, session, "quality", number=1, **key)
    assert (await record(colleague, session, "quality", number=1, **key))["id"] == theirs["id"]
    own = await record(member, session, "quality", number=1)
    assert (await colleague.refused(DELETE, input={"scoreId": own["id"]})).codes == ["FORBIDDEN"]
    assert (await people.stranger.client.refused(DELETE, input={"scoreId": own["id"]})).codes == ["NOT_FOUND"]
    await member(DELETE, input={"scoreId": theirs["id"]})
    await member(DELETE, input={"scoreId": own["id"]})
    assert (await member.refused(DELETE, input={"scoreId": own["id"]})).codes == ["NOT_FOUND"]
    gone = await colleague.refused(RECORD, input={"sessionId": session, "name": "quality", "number": 1} | key)
    assert gone.codes == ["NOT_FOUND"]


async def test_scores_that_make_no_sense_are_refused(people: People) -> None:
    client = people.member.client
    session, told = await a_conversation(client)
    other, _ = await a_conversation(client)
    message, run = told["messages"]["nodes"][-1]["id"], told["runs"]["nodes"][0]["id"]
    for given, code in (
        ({}, "BAD_INPUT"),
        ({"number": 1, "boolean": True}, "BAD_INPUT"),
        ({"number": 1, "messageId": message, "runId": run}, "BAD_INPUT"),
        ({"number": 1, "name": ""}, "BAD_INPUT"),
        ({"number": 1, "name": "x" * 101}, "BAD_INPUT"),
        ({"category": " "}, "BAD_INPUT"),
        ({"category": "x" * 201}, "BAD_INPUT"),
        ({"number": 1, "evaluator": ""}, "BAD_INPUT"),
        ({"number": 1, "comment": "x" * 2001}, "TOO_LARGE"),
        ({"number": 1, "sessionId": other, "messageId": message}, "NOT_FOUND"),
        ({"number": 1, "sessionId": other, "runId": run}, "NOT_FOUND"),
        ({"number": 1, "toolExecutionId": encode("tex", new_id())}, "NOT_FOUND"),
    ):
        refused = await client.refused(RECORD, input={"sessionId": session, "name": "quality"} | given)
        assert refused.codes == [code], (given, refused)
    viewer = await people.viewer.client.refused(RECORD, input={"sessionId": session, "name": "q", "number": 1})
    assert viewer.codes == ["FORBIDDEN"]
    stranger = await people.stranger.client.refused(RECORD, input={"sessionId": session, "name": "q", "number": 1})
    assert stranger.codes == ["NOT_FOUND"]


async def test_a_recorded_score_is_told_live(people: People) -> None:
    session, told = await a_conversation(people.member.client)
    message = told["messages"]["nodes"][-1]["id"]
    async with following(people.member.client, session) as stream:
        score = await record(people.colleague.client, session, "quality", number=1, messageId=message)
        event = (await stream.until(named("score.recorded")))[-1]
    assert event["data"] == {"scoreId": score["id"], "name": "quality", "messageId": message}
