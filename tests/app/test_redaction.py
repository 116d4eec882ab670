"""Redaction and forks through the graph: annotations stay with their text."""

from __future__ import annotations

import asyncio

import pytest

from tests.annotating import ON_MESSAGES, REDACT, annotate, found, on_comment, on_thread, reply, thread_of
from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.talking import FORK, asks, create, following, history, named, talk, texts

pytestmark = pytest.mark.anyio

SAID = "The password is hunter2 🙂, and hunter2 it stays. All is well."
PLAYBOOK = f"playbook: p\nsteps:\n- say: '{SAID}'"


async def a_conversation(client: Client) -> tuple[str, list[Json]]:
    session = (await create(client, visibility="ORGANIZATION"))["id"]
    await talk(client, session, PLAYBOOK)
    return session, (await history(client, session))["messages"]["nodes"]


def ranged(message: Json, quote: str) -> Json:
    start = message["text"].index(quote)
    return {"messageId": message["id"], "start": start, "end": start + len(quote), "quote": quote}


async def test_what_is_redacted_is_gone_and_annotations_stay_on_their_text(people: People) -> None:
    client = people.member.client
    session, messages = await a_conversation(client)
    answer = messages[-1]
    places = ["The password", "hunter2 🙂, and", "unter", "is well", "All is well."]
    threads = [(await annotate(client, session, anchor=ranged(answer, quote)))["thread"]["id"] for quote in places]
    whole = (await annotate(client, session, anchor={"messageId": answer["id"]}))["thread"]["id"]
    mentioned = f"@[x]({people.colleague.id}) look here."
    await annotate(client, session, mentioned, anchor=ranged(answer, "hunter2 🙂, and"))
    given = {
        "messageId": answer["id"],
        "quotes": ["hunter2"],
        "ranges": [{"start": 0, "end": 3}],
        "reason": "A secret.",
    }
    changed = (await client(REDACT, input=given))["redactMessage"]["message"]
    assert changed["text"] == "[redacted] password is [redacted] 🙂, and [redacted] it stays. All is well."
    read = [await thread_of(client, thread) for thread in threads]
    for thread in read:
        anchor = thread["anchor"]
        assert changed["text"][anchor["start"] : anchor["end"]] == anchor["quote"]
        assert "hunter2" not in anchor["prefix"] + anchor["quote"] + anchor["suffix"]
        assert changed["text"][: anchor["start"]].endswith(anchor["prefix"])
    assert [thread["anchor"]["quote"] for thread in read] == [
        "[redacted] password",
        "[redacted] 🙂, and",
        "[redacted]",
        "is well",
        "All is well.",
    ]
    assert [thread["orphaned"] for thread in read] == [False, False, True, False, False]
    assert (await thread_of(client, whole))["anchor"]["quote"] is None
    # Who was told of an annotation was told of what it says, never of what it is on.
    inbox = await people.colleague.client("{ viewer { notifications(first: 100) { nodes { title body } } } }")
    assert "look here." in str(inbox)
    assert "hunter2" not in str(inbox)
    # A stream from the beginning has it no more, in any of its events.
    async with following(people.colleague.client, session) as stream:
        events = await stream.until(named("message.redacted"))
    assert texts(events)[answer["id"]] == changed["text"]
    of_message = [event for event in events if event["data"].get("messageId") == answer["id"]]
    assert len(of_message) > 3
    assert "hunter2" not in str(of_message)
    end = SAID.index("hunter2")
    assert events[-1]["data"]["ranges"][:2] == [{"start": 0, "end": 3}, {"start": end, "end": end + 7}]


async def test_a_message_that_was_sent_or_copied_is_redacted_in_its_events_too(people: People) -> None:
    client = people.member.client
    session, messages = await a_conversation(client)
    fork = (await client(FORK, input={"sessionId": session}))["forkSession"]["session"]["id"]
    copied = (await history(client, fork))["messages"]["nodes"]
    for where, message in ((session, messages[0]), (fork, copied[0]), (fork, copied[1])):
        given = {"messageId": message["id"], "quotes": ["hunter2"], "reason": "A secret."}
        await client(REDACT, input=given)
        async with following(client, where) as stream:
            events = await stream.until(named("message.redacted"))
        assert "hunter2" not in str([event for event in events if event["data"].get("messageId") == message["id"]])
    # Each copy is a message of its own.
    assert "hunter2" in (await history(client, session))["messages"]["nodes"][1]["text"]
    audited = 'query { auditEvents(first: 5, filter: {action: "message.redact"}) { nodes { before after } } }'
    records = (await people.admin.client(audited))["auditEvents"]["nodes"]
    assert records[0]["after"]["reason"] == "A secret."
    assert "hunter2" not in str(records)


async def test_redaction_takes_administration_of_the_session_and_no_open_runs(people: People) -> None:
    client = people.member.client
    session, messages = await a_conversation(client)
    given = {"messageId": messages[-1]["id"], "quotes": ["hunter2"], "reason": "A secret."}
    assert (await people.colleague.client.refused(REDACT, input=given)).codes == ["FORBIDDEN"]
    assert (await people.viewer.client.refused(REDACT, input=given)).codes == ["FORBIDDEN"]
    assert (await people.stranger.client.refused(REDACT, input=given)).codes == ["NOT_FOUND"]
    length = len(messages[-1]["text"])
    for more, code in (
        ({"quotes": []}, "BAD_INPUT"),
        ({"quotes": [""]}, "BAD_INPUT"),
        ({"quotes": ["swordfish"]}, "BAD_INPUT"),
        ({"quotes": ["x" * 20_001]}, "TOO_LARGE"),
        ({"quotes": ["hunter2"] * 101}, "BAD_INPUT"),
        ({"ranges": [{"start": 4, "end": 4}]}, "BAD_INPUT"),
        ({"ranges": [{"start": -1, "end": 4}]}, "BAD_INPUT"),
        ({"ranges": [{"start": 0, "end": length + 1}]}, "BAD_INPUT"),
        ({"reason": " "}, "BAD_INPUT"),
        ({"reason": "x" * 501}, "BAD_INPUT"),
        ({"messageId": "msg_x"}, "BAD_INPUT"),
    ):
        refused = await client.refused(REDACT, input=given | more)
        assert refused.codes == [code], more
        assert "swordfish" not in refused.message
    waiting = "playbook: p\nsteps:\n- tool: list_files\n  approve: 'Really?'\n- say: done"
    await talk(client, session, waiting, asks)
    refused = await client.refused(REDACT, input=given)
    assert refused.codes == ["ILLEGAL_TRANSITION"]
    assert (await history(client, session))["messages"]["nodes"][1]["text"] == messages[-1]["text"]


async def test_redactions_and_annotations_at_once_keep_every_quote_on_its_text(people: People) -> None:
    client = people.member.client
    session, messages = await a_conversation(client)
    answer = messages[-1]
    whole = len(answer["text"])

    async def annotated(at: int) -> None:
        anchor = {"messageId": answer["id"], "start": at, "end": at + 5, "quote": answer["text"][at : at + 5]}
        # Who comes after the redaction is told that the text is another one.
        await client.raw(
            "mutation ($input: CreateAnnotationInput!) { createAnnotation(input: $input) { thread { id } } }",
            {"input": {"sessionId": session, "text": "Here.", "anchor": anchor}},
        )

    redactions = [
        client(REDACT, input={"messageId": answer["id"], "quotes": ["hunter2"], "reason": "A secret."}),
        *(annotated(at) for at in range(0, whole - 5, 4)),
    ]
    await asyncio.gather(*redactions[1:8], redactions[0], *redactions[8:])
    [message] = [
        node
        for node in (await client(ON_MESSAGES, id=session))["session"]["messages"]["nodes"]
        if node["id"] == answer["id"]
    ]
    assert message["annotations"]["nodes"]
    for thread in message["annotations"]["nodes"]:
        anchor = thread["anchor"]
        assert message["text"][anchor["start"] : anchor["end"]] == anchor["quote"]
        assert "hunter2" not in anchor["quote"]


async def test_a_fork_keeps_what_is_annotated_on_the_messages_that_it_copies(people: People) -> None:
    member, colleague = people.member.client, people.colleague.client
    session, messages = await a_conversation(member)
    ranged_thread = (
        await annotate(member, session, "First **here**.", anchor=ranged(messages[1], "is well"), labels=["bug"])
    )["thread"]
    answered = await reply(colleague, ranged_thread["id"], f"Answered, @[you]({people.member.id}).")
    await on_comment(member, "reactToComment", answered["id"], emoji="👍")
    await on_comment(colleague, "editComment", answered["id"], text="Answered well.")
    removed = await reply(colleague, ranged_thread["id"], "Never mind.")
    await on_comment(colleague, "deleteComment", removed["id"])
    asked = (await annotate(colleague, session, "On the question.", anchor={"messageId": messages[0]["id"]}))["thread"]
    await on_thread(member, "resolveAnnotation", asked["id"])
    await annotate(member, session, "On the session.")
    await talk(member, session, "playbook: p\nsteps:\n- say: more")
    later = (await history(member, session))["messages"]["nodes"][-1]
    await annotate(member, session, "After the fork.", anchor={"messageId": later["id"]})

    fork = (await colleague(FORK, input={"sessionId": session, "messageId": messages[1]["id"]}))["forkSession"]
    read = (await colleague(ON_MESSAGES, id=fork["session"]["id"]))["session"]["messages"]["nodes"]
    question, answer = ([*node["annotations"]["nodes"]] for node in read)
    assert [thread["copiedFromId"] for thread in question + answer] == [asked["id"], ranged_thread["id"]]
    [copy] = answer
    assert copy["anchor"] == ranged_thread["anchor"]
    assert (copy["message"]["id"], copy["labels"], copy["author"]) == (read[1]["id"], ["bug"], {"id": people.member.id})
    said = copy["comments"]["nodes"]
    assert [comment["plain"] for comment in said] == ["First here.", "Answered well.", ""]
    assert [comment["author"]["id"] for comment in said] == [people.member.id, people.colleague.id, people.colleague.id]
    assert said[1]["copiedFromId"] == answered["id"]
    assert (question[0]["status"], question[0]["resolvedBy"]) == ("RESOLVED", {"id": people.member.id})
    assert sorted(thread["number"] for thread in question + answer) == [1, 2]
    # It goes on by itself: with numbers that follow, an edit of what was copied, and a redaction of its own.
    next_one = (await annotate(colleague, fork["session"]["id"], "New."))["thread"]
    assert next_one["number"] == 3
    edited = await on_comment(colleague, "editComment", said[1]["id"], text="Answered better.")
    assert (edited["revisionCount"], edited["reactionCounts"]) == (1, [])
    given = {"messageId": read[1]["id"], "quotes": ["hunter2"], "reason": "A secret."}
    await colleague(REDACT, input=given)
    assert (await thread_of(colleague, copy["id"]))["anchor"]["quote"] == "is well"
    assert (await thread_of(member, ranged_thread["id"]))["anchor"] == ranged_thread["anchor"]
    assert len(await found(colleague, sessionIds=[fork["session"]["id"]])) == 3
    # The fork is the colleague's own: who may not see it finds nothing of it.
    assert await found(member, sessionIds=[fork["session"]["id"]]) == []
