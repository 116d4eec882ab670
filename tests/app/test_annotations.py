"""Annotations through the graph: threads at a place, comments, reactions, mentions, search, and who may do what."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from core.ids import encode, new_id
from tests.annotating import (
    CREATE_ANNOTATION,
    REPLY,
    SEARCH,
    annotate,
    document_of,
    found,
    on_comment,
    on_thread,
    reply,
    thread_of,
)
from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.talking import create, following, history, named, talk

pytestmark = pytest.mark.anyio

PLAYBOOK = """
playbook: p
steps:
- tool: write_file
  arguments: {path: a.txt, content: a}
- say: "Grüße 🙂, the pool is dry."
"""


async def a_conversation(client: Client) -> tuple[str, Json]:
    """A session that its organisation may read, with what was said and done in it."""
    session = (await create(client, visibility="ORGANIZATION", permissionMode="BYPASS_PERMISSIONS"))["id"]
    await talk(client, session, PLAYBOOK)
    return session, await history(client, session)


def answer_of(told: Json) -> Json:
    return told["messages"]["nodes"][-1]  # type: ignore[no-any-return]


# -- at a place


async def test_a_thread_is_begun_answered_resolved_and_followed_live(people: People) -> None:
    session, told = await a_conversation(people.member.client)
    answer = answer_of(told)
    start = answer["text"].index("the pool")
    anchor = {"messageId": answer["id"], "start": start, "end": start + 8, "quote": "the pool"}
    async with following(people.member.client, session) as stream:
        made = await annotate(
            people.colleague.client, session, "Why is it **dry**?", anchor=anchor, labels=["Bug", "ops"]
        )
        thread, comment = made["thread"], made["comment"]
        await reply(people.member.client, thread["id"], "Too few connections.")
        await on_thread(people.colleague.client, "resolveAnnotation", thread["id"])
        events = await stream.until(named("annotation.resolved"))
    assert thread["anchor"] == {
        "block": None,
        "start": start,
        "end": start + 8,
        "quote": "the pool",
        "prefix": answer["text"][:start],
        "suffix": answer["text"][start + 8 :],
    }
    assert (thread["message"], thread["toolExecution"]) == ({"id": answer["id"]}, None)
    assert (thread["number"], thread["status"], thread["labels"]) == (1, "OPEN", ["bug", "ops"])
    assert comment["html"] == "<p>Why is it <strong>dry</strong>?</p>"
    assert comment["plain"] == "Why is it dry?"
    told_of = [event["name"] for event in events if (event["name"] or "").startswith("quarterdeck.annotation.")]
    assert told_of == [f"quarterdeck.annotation.{what}" for what in ("created", "commented", "resolved")]
    assert events[-1]["data"] == {"threadId": thread["id"], "messageId": answer["id"]}
    now = await thread_of(people.viewer.client, thread["id"])
    assert (now["status"], now["resolvedBy"]["id"]) == ("RESOLVED", people.colleague.id)
    assert [said["plain"] for said in now["comments"]["nodes"]] == ["Why is it dry?", "Too few connections."]
    again = await on_thread(people.member.client, "reopenAnnotation", thread["id"])
    assert (again["status"], again["resolvedBy"], again["resolvedAt"]) == ("OPEN", None, None)


async def test_everything_can_be_annotated_and_is_found_where_it_is(people: People) -> None:
    client = people.member.client
    session, told = await a_conversation(client)
    answer, tool = answer_of(told), told["toolExecutions"]["nodes"][0]
    block = tool["result"][0]["text"]
    anchors = [
        None,
        {"messageId": answer["id"]},
        {"messageId": answer["id"], "block": 0, "start": 0, "end": 7, "quote": "Grüße 🙂"},
        {"toolExecutionId": tool["id"]},
        {"toolExecutionId": tool["id"], "block": 0},
        {"toolExecutionId": tool["id"], "block": 0, "start": 0, "end": 4, "quote": block[:4]},
    ]
    threads = [(await annotate(client, session, anchor=anchor))["thread"] for anchor in anchors]
    assert [thread["number"] for thread in threads] == [1, 2, 3, 4, 5, 6]
    assert [thread["anchor"]["quote"] for thread in threads] == [None, None, "Grüße 🙂", None, None, block[:4]]
    await on_thread(client, "resolveAnnotation", threads[2]["id"])
    document = """
    query ($id: ID!, $open: AnnotationFilter) {
      session(id: $id) {
        annotations { totalCount nodes { id } }
        open: annotations(filter: $open, first: 3) { totalCount nodes { id } pageInfo { hasNextPage } }
        messages { nodes { annotationCount openAnnotationCount annotations(filter: $open) { nodes { id } } } }
        toolExecutions { nodes { annotations { nodes { id } } } }
      }
    }
    """
    read = (await client(document, id=session, open={"status": ["OPEN"]}))["session"]
    ids = [thread["id"] for thread in threads]
    assert [node["id"] for node in read["annotations"]["nodes"]] == ids
    assert (read["open"]["totalCount"], read["open"]["pageInfo"]["hasNextPage"]) == (5, True)
    last = read["messages"]["nodes"][-1]
    assert (last["annotationCount"], last["openAnnotationCount"]) == (2, 1)
    assert last["annotations"]["nodes"] == [{"id": ids[1]}]
    assert [node["id"] for node in read["toolExecutions"]["nodes"][0]["annotations"]["nodes"]] == ids[3:]
    for id_, type_ in ((ids[0], "AnnotationThread"), (threads[0]["comments"]["nodes"][0]["id"], "AnnotationComment")):
        assert (await client("query ($id: ID!) { node(id: $id) { __typename id } }", id=id_))["node"] == {
            "__typename": type_,
            "id": id_,
        }


async def test_places_that_are_not_there_are_refused(people: People) -> None:
    client = people.member.client
    session, told = await a_conversation(client)
    _, others = await a_conversation(client)
    answer, tool = answer_of(told), told["toolExecutions"]["nodes"][0]["id"]
    message, length = answer["id"], len(answer["text"])
    for anchor, code, field in (
        ({"messageId": answer_of(others)["id"]}, "NOT_FOUND", "anchor.messageId"),
        ({"messageId": encode("msg", new_id())}, "NOT_FOUND", "anchor.messageId"),
        ({"messageId": "msg_nonsense"}, "BAD_INPUT", "anchor.messageId"),
        ({"messageId": tool}, "NOT_FOUND", "anchor.messageId"),
        ({"toolExecutionId": others["toolExecutions"]["nodes"][0]["id"]}, "NOT_FOUND", "anchor.toolExecutionId"),
        ({"messageId": message, "toolExecutionId": tool}, "BAD_INPUT", "anchor"),
        ({"messageId": message, "block": 1}, "BAD_INPUT", "anchor.block"),
        ({"toolExecutionId": tool, "block": 7}, "BAD_INPUT", "anchor.block"),
        ({"toolExecutionId": tool, "block": -1}, "BAD_INPUT", "anchor.block"),
        ({"toolExecutionId": tool, "start": 0, "end": 1}, "BAD_INPUT", "anchor.block"),
        ({"messageId": message, "start": 3, "end": 3}, "BAD_INPUT", "anchor.start"),
        ({"messageId": message, "start": -1, "end": 3}, "BAD_INPUT", "anchor.start"),
        ({"messageId": message, "start": 0, "end": length + 1}, "BAD_INPUT", "anchor.start"),
        ({"messageId": message, "start": 0}, "BAD_INPUT", "anchor.start"),
        ({"messageId": message, "quote": "Grüße"}, "BAD_INPUT", "anchor.start"),
        ({"messageId": message, "start": 0, "end": 5, "quote": "Hallo"}, "BAD_INPUT", "anchor.quote"),
        ({"start": 0, "end": 5}, "BAD_INPUT", "anchor"),
    ):
        refused = await client.refused(CREATE_ANNOTATION, input={"sessionId": session, "text": "No.", "anchor": anchor})
        assert (refused.codes, refused.extensions.get("field")) == ([code], field), (anchor, refused)
    assert refused.codes == ["BAD_INPUT"]
    stale = await client.refused(
        CREATE_ANNOTATION,
        input={
            "sessionId": session,
            "text": "x",
            "anchor": {"messageId": message, "start": 0, "end": 5, "quote": "no"},
        },
    )
    assert stale.extensions["found"] == "Grüße"
    assert "'Grüße'" in stale.message


# -- comments


async def test_a_comment_is_edited_with_its_history_and_deleted_with_its_place(people: People) -> None:
    session, _ = await a_conversation(people.member.client)
    author, other = people.colleague.client, people.member.client
    made = await annotate(author, session, "First.")
    thread, comment = made["thread"]["id"], made["comment"]["id"]
    await on_comment(author, "editComment", comment, text="*Second.*")
    edited = await on_comment(author, "editComment", comment, text="Third.")
    assert [said["markdown"] for said in edited["revisions"]["nodes"]] == ["First.", "*Second.*"]
    assert (edited["revisionCount"], edited["plain"], edited["editedAt"] is not None) == (2, "Third.", True)
    for client in (other, people.admin.client):
        refused = await client.refused(document_of("editComment"), input={"commentId": comment, "text": "Mine."})
        assert refused.codes == ["FORBIDDEN"]
    await on_comment(other, "reactToComment", comment, emoji="👍")
    second = await reply(other, thread, "An answer.")
    assert (await author.refused(document_of("deleteComment"), input={"commentId": second["id"]})).codes == [
        "FORBIDDEN"
    ]
    # Whose session it is may delete what others say in it.
    deleted = await on_comment(other, "deleteComment", comment)
    assert (deleted["markdown"], deleted["html"], deleted["plain"]) == ("", "", "")
    assert (deleted["revisions"]["totalCount"], deleted["reactionCounts"]) == (0, [])
    assert deleted["deletedBy"] == {"id": people.member.id}
    assert (await on_comment(author, "deleteComment", comment))["deletedAt"] == deleted["deletedAt"]
    for mutation, more in (("editComment", {"text": "x"}), ("reactToComment", {"emoji": "👍"})):
        refused = await author.refused(document_of(mutation), input={"commentId": comment} | more)
        assert refused.codes == ["ILLEGAL_TRANSITION"]
    left = await thread_of(author, thread)
    assert [said["plain"] for said in left["comments"]["nodes"]] == ["", "An answer."]
    assert left["commentCount"] == 2


async def test_reactions_are_counted_once_a_person(people: People) -> None:
    session, _ = await a_conversation(people.member.client)
    comment = (await annotate(people.member.client, session))["comment"]["id"]
    for client in (people.member.client, people.colleague.client, people.colleague.client):
        await on_comment(client, "reactToComment", comment, emoji="👩‍👩‍👧‍👦")
    seen = await on_comment(people.member.client, "reactToComment", comment, emoji=":ship-it:")
    assert seen["reactionCounts"] == [
        {"emoji": "👩‍👩‍👧‍👦", "count": 2, "mine": True},
        {"emoji": ":ship-it:", "count": 1, "mine": True},
    ]
    await on_comment(people.member.client, "removeReaction", comment, emoji="👩‍👩‍👧‍👦")
    left = await on_comment(people.member.client, "removeReaction", comment, emoji="👩‍👩‍👧‍👦")
    assert left["reactionCounts"][0] == {"emoji": "👩‍👩‍👧‍👦", "count": 1, "mine": False}
    assert len(left["reactions"]["nodes"]) == 2
    for emoji in ("", " ", "a b", "\u202e", "x" * 17, "👍\n"):
        refused = await people.member.client.refused(
            document_of("reactToComment"), input={"commentId": comment, "emoji": emoji}
        )
        assert refused.codes == ["BAD_INPUT"], repr(emoji)


async def test_texts_and_labels_have_a_size(people: People) -> None:
    client = people.member.client
    session, _ = await a_conversation(client)
    for text, code in (
        ("", "BAD_INPUT"),
        (" \n ", "BAD_INPUT"),
        ("[nothing]: https://example.com", "BAD_INPUT"),
        ("x" * 20_001, "TOO_LARGE"),
        ("x" * 1_000_000, "TOO_LARGE"),
        ("a\0b", "BAD_INPUT"),
    ):
        refused = await client.refused(CREATE_ANNOTATION, input={"sessionId": session, "text": text})
        assert refused.codes == [code], text[:10]
    for labels in ([""], ["x" * 51], ["a\u202eb"], [str(n) for n in range(21)]):
        refused = await client.refused(CREATE_ANNOTATION, input={"sessionId": session, "text": "x", "labels": labels})
        assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "labels")
    largest = await annotate(client, session, "x" * 20_000, labels=["  Two   Words ", "two words", "ÄB"])
    assert largest["thread"]["labels"] == ["two words", "äb"]
    labelled = await on_thread(client, "labelAnnotation", largest["thread"]["id"], labels=["done"])
    assert labelled["labels"] == ["done"]


async def test_the_same_key_says_it_once(people: People) -> None:
    client = people.member.client
    session, _ = await a_conversation(client)
    key = uuid4().hex
    one, two = await asyncio.gather(*(annotate(client, session, "Once.", idempotencyKey=key) for _ in range(2)))
    assert one["thread"]["id"] == two["thread"]["id"]
    assert one["comment"]["id"] == two["comment"]["id"]
    thread = one["thread"]["id"]
    said = await asyncio.gather(*(reply(client, thread, "And again.", idempotencyKey=key) for _ in range(3)))
    assert len({comment["id"] for comment in said}) == 1
    assert (await thread_of(client, thread))["commentCount"] == 2
    refused = await client.refused(REPLY, input={"threadId": thread, "text": "Else.", "idempotencyKey": key})
    assert refused.codes == ["CONFLICT"]


async def test_many_who_reply_at_once_are_numbered_without_gaps(people: People) -> None:
    session, _ = await a_conversation(people.member.client)
    thread = (await annotate(people.member.client, session))["thread"]["id"]
    clients = [people.member.client, people.colleague.client, people.admin.client] * 4
    await asyncio.gather(*(reply(client, thread, f"Reply {n}.") for n, client in enumerate(clients)))
    left = await thread_of(people.member.client, thread)
    assert [said["number"] for said in left["comments"]["nodes"]] == list(range(1, 14))
    assert left["commentCount"] == 13


# -- mentions


async def test_people_are_mentioned_by_their_id_and_shown_by_their_name(people: People) -> None:
    session, _ = await a_conversation(people.member.client)
    text = f"@[somebody else]({people.viewer.id}) and `@[code]({people.admin.id})`"
    comment = (await annotate(people.member.client, session, text))["comment"]
    assert comment["mentions"] == [{"id": people.viewer.id}]
    assert f'<span data-user-id="{people.viewer.id}">@Test Viewer</span>' in comment["html"]
    assert comment["plain"].startswith("@Test Viewer and")
    assert comment["thread"]["id"] in await found(people.viewer.client, mentionsMe=True)
    assert comment["thread"]["id"] not in await found(people.admin.client, mentionsMe=True)


async def test_only_those_who_may_see_the_session_are_mentioned(people: People) -> None:
    private = (await create(people.member.client))["id"]
    nobody = encode("usr", new_id())
    for who in (people.colleague.id, people.stranger.id, nobody):
        refused = await people.member.client.refused(
            CREATE_ANNOTATION, input={"sessionId": private, "text": f"@[x]({who}) @[y]({people.admin.id})"}
        )
        assert (refused.codes, refused.extensions["userIds"]) == (["BAD_INPUT"], [who])
    for text in ("@[x](usr_nonsense)", "@[x](usr_)"):
        refused = await people.member.client.refused(CREATE_ANNOTATION, input={"sessionId": private, "text": text})
        assert refused.codes == ["BAD_INPUT"]
    crowd = " ".join(f"@[x]({encode('usr', new_id())})" for _ in range(21))
    refused = await people.member.client.refused(CREATE_ANNOTATION, input={"sessionId": private, "text": crowd})
    assert refused.codes == ["LIMIT_EXCEEDED"]
    await annotate(people.member.client, private, f"@[an admin sees everything]({people.admin.id})")


# -- who may


async def test_who_may_not_see_a_session_knows_of_none_of_it(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    made = await annotate(client, session, "Between us: quokka.")
    thread, comment = made["thread"]["id"], made["comment"]["id"]
    for other in (people.colleague.client, people.stranger.client):
        assert await found(other, text="quokka") == []
        for id_ in (thread, comment):
            assert (await other("query ($id: ID!) { node(id: $id) { id } }", id=id_))["node"] is None
        for document, given in (
            (CREATE_ANNOTATION, {"sessionId": session, "text": "x"}),
            (REPLY, {"threadId": thread, "text": "x"}),
            (document_of("resolveAnnotation"), {"threadId": thread}),
            (document_of("reopenAnnotation"), {"threadId": thread}),
            (document_of("labelAnnotation"), {"threadId": thread, "labels": []}),
            (document_of("editComment"), {"commentId": comment, "text": "x"}),
            (document_of("deleteComment"), {"commentId": comment}),
            (document_of("reactToComment"), {"commentId": comment, "emoji": "👍"}),
            (document_of("removeReaction"), {"commentId": comment, "emoji": "👍"}),
        ):
            assert (await other.refused(document, input=given)).codes == ["NOT_FOUND"], document
    assert await found(people.admin.client, text="quokka") == [thread]


async def test_a_viewer_reads_and_says_nothing(people: People) -> None:
    session, _ = await a_conversation(people.member.client)
    thread = (await annotate(people.member.client, session))["thread"]["id"]
    viewer = people.viewer.client
    assert (await thread_of(viewer, thread))["commentCount"] == 1
    refused = await viewer.refused(REPLY, input={"threadId": thread, "text": "x"})
    assert refused.codes == ["FORBIDDEN"]
    assert "ANNOTATIONS_WRITE" in refused.message


async def test_a_change_of_visibility_hides_annotations_too(people: People) -> None:
    session, _ = await a_conversation(people.member.client)
    thread = (await annotate(people.colleague.client, session, "Numbat."))["thread"]["id"]
    update = "mutation ($input: UpdateSessionInput!) { updateSession(input: $input) { session { id } } }"
    await people.member.client(update, input={"sessionId": session, "visibility": "PRIVATE"})
    assert await thread_of(people.colleague.client, thread) is None
    assert await found(people.colleague.client, text="numbat") == []
    refused = await people.colleague.client.refused(REPLY, input={"threadId": thread, "text": "x"})
    assert refused.codes == ["NOT_FOUND"]


# -- search


async def test_annotations_are_found_across_sessions(people: People) -> None:
    member, colleague = people.member.client, people.colleague.client
    word = f"w{uuid4().hex[:12]}"
    one, _ = await a_conversation(member)
    two, _ = await a_conversation(colleague)
    threads = [
        (await annotate(member, one, f"Timeouts of the {word} pool", labels=[word, "bug"]))["thread"]["id"],
        (await annotate(colleague, two, f"The {word} times out", labels=[word]))["thread"]["id"],
        (await annotate(member, two, f"Nothing but {word}"))["thread"]["id"],
    ]
    first, second, third = threads
    await reply(colleague, first, f"{word}: an answer of mine")
    await on_thread(member, "resolveAnnotation", second)
    assert await found(member, text=word) == [third, second, first]
    # English endings, phrases, alternatives, exclusion.
    assert await found(member, text=f"{word} timeout") == [first]
    assert await found(member, text=f'"{word} pool"') == [first]
    assert await found(member, text=f"{word} pool or {word} time") == [second, first]
    assert await found(member, text=f"{word} -nothing -pool -answer") == [second]
    assert await found(member, text=f"{word} nosuchword") == []
    # What is asked of comments, one comment has.
    assert await found(member, text=word, authorIds=[people.colleague.id]) == [second, first]
    assert await found(member, text=f"{word} pool", authorIds=[people.colleague.id]) == []
    assert await found(member, text=word, status=["OPEN"]) == [third, first]
    assert await found(member, text=word, sessionIds=[one]) == [first]
    assert await found(member, labels=[word]) == [second, first]
    assert await found(member, labels=[word.upper(), "BUG"]) == [first]
    at = "2000-01-01T00:00:00Z"
    assert await found(member, text=word, createdBefore=at) == []
    assert len(await found(member, text=word, createdAfter=at)) == 3
    page = (await member(SEARCH, filter={"text": word}, first=2, orderBy="OLDEST_FIRST"))["annotations"]
    rest = await member(
        SEARCH, filter={"text": word}, first=2, after=page["pageInfo"]["endCursor"], orderBy="OLDEST_FIRST"
    )
    assert [node["id"] for node in page["nodes"] + rest["annotations"]["nodes"]] == threads
    for filter_ in (
        {"text": ""},
        {"text": "x" * 201},
        {"sessionIds": ["ses_x"]},
        {"authorIds": [people.admin.id] * 101},
    ):
        refused = await member.refused(SEARCH, filter=filter_)
        assert refused.codes == ["BAD_INPUT"]
    # Whatever is written there, it is words to search.
    for text in ("'; DROP TABLE x; --", "a & | ! ( :*", '"', "\\", "🙂", "-", "or or or", "%_"):
        await member(SEARCH, filter={"text": text})


async def test_what_was_deleted_or_edited_is_not_found_by_what_it_said(people: People) -> None:
    session, _ = await a_conversation(people.member.client)
    word = f"w{uuid4().hex[:12]}"
    made = await annotate(people.member.client, session, f"It is {word}.")
    comment, thread = made["comment"]["id"], made["thread"]["id"]
    await on_comment(people.member.client, "editComment", comment, text=f"It is not {word}2.")
    assert await found(people.member.client, text=word) == []
    assert await found(people.member.client, text=f"{word}2") == [thread]
    await on_comment(people.member.client, "deleteComment", comment)
    assert await found(people.member.client, text=f"{word}2") == []
