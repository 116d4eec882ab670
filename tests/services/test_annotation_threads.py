"""Annotations where the graph does not look: limits, who is told, what the audit log keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from core import db
from core.errors import BadInput, Forbidden, IllegalTransition, LimitExceeded, RateLimited
from core.ids import encode
from core.permissions import Actor, ActorKind, Role
from models.notifications import NotificationKind
from models.sessions import SessionRow, Visibility
from services.annotations import comments, threads
from services.annotations.mentions import MOST_TOLD
from services.annotations.places import Place
from services.annotations.scores import NewScore, record_score
from services.identity.accounts import create_user
from services.sessions.forking import fork_session
from services.sessions.lifecycle import NewSession, create_session
from services.work import Work
from tests.services.identity_help import House, a_house, audited

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database: object) -> House:
    return await a_house()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[UUID], str]]:
    """Who is told of what: kind, people, body."""
    found: list[tuple[str, set[UUID], str]] = []
    notify = Work.notify

    def noting(work: Work, kind: NotificationKind, people: Iterable[UUID], title: str, **more: Any) -> None:
        people = list(people)
        found.append((kind.value, set(people), more["body"]))
        notify(work, kind, people, title, **more)

    monkeypatch.setattr(Work, "notify", noting)
    return found


async def a_session(actor: Actor) -> SessionRow:
    return await create_session(actor, NewSession(visibility=Visibility.ORGANIZATION))


async def a_message(session: SessionRow, text: str = "hello world", status: str = "COMPLETE") -> UUID:
    return await db.fetchval(  # type: ignore[no-any-return]
        "INSERT INTO messages (id, organization_id, session_id, seq, role, status, reasoning, text, created_at) "
        "SELECT gen_random_uuid(), $2, $1, 1000 + count(*), 'ASSISTANT', $4, false, $3, now() FROM messages "
        "WHERE session_id = $1 RETURNING id",
        session["id"],
        session["organization_id"],
        text,
        status,
    )


def mention(*people: UUID) -> str:
    return " ".join(f"@[x]({encode('usr', person)})" for person in people)


async def test_people_are_told_once_of_what_concerns_them(house: House, told: list[tuple[str, set[UUID], str]]) -> None:
    owner, admin, member = (house.actor(role) for role in (Role.OWNER, Role.ADMIN, Role.MEMBER))
    ids = {role: house.users[role]["id"] for role in Role}
    session = await a_session(member)
    text = f"Look, {mention(ids[Role.ADMIN], ids[Role.MEMBER])}"
    thread, comment = await threads.create_annotation(member, session["id"], Place(), text)
    assert told == [("MENTION", {ids[Role.ADMIN]}, comment["plain"])]
    told.clear()
    await threads.reply_to_annotation(admin, thread["id"], "I see.")
    assert told == [("REPLY", {ids[Role.MEMBER]}, "I see.")]
    told.clear()
    # Who is mentioned is told of that, and not of the reply besides.
    _, third = await threads.reply_to_annotation(owner, thread["id"], f"And {mention(ids[Role.ADMIN])}?")
    assert [(kind, people) for kind, people, _ in told] == [
        ("MENTION", {ids[Role.ADMIN]}),
        ("REPLY", {ids[Role.MEMBER]}),
    ]
    told.clear()
    await comments.edit_comment(owner, third["id"], "Nobody.")
    await comments.edit_comment(owner, third["id"], f"{mention(ids[Role.ADMIN], ids[Role.VIEWER])}")
    assert [(kind, people) for kind, people, _ in told] == [("MENTION", {ids[Role.VIEWER]})]


async def test_a_storm_of_mentions_is_stopped(house: House) -> None:
    member = house.actor(Role.MEMBER)
    people = [
        (await create_user(house.system, name=f"P {n}", email=f"p{n}@acme.example", role=Role.VIEWER))["id"]
        for n in range(20)
    ]
    one, two = await a_session(member), await a_session(member)
    thread, _ = await threads.create_annotation(member, one["id"], Place(), mention(*people))
    for session in (one, two):
        await threads.create_annotation(member, session["id"], Place(), mention(*people))
    assert MOST_TOLD == 60
    with pytest.raises(RateLimited) as refused:
        await threads.reply_to_annotation(member, thread["id"], mention(people[0]))
    assert 1 <= refused.value.details["retryAfterSeconds"] <= 60
    assert await db.fetchval("SELECT comment_count FROM annotation_threads WHERE id = $1", thread["id"]) == 1
    await threads.reply_to_annotation(member, thread["id"], "Without a name.")
    await threads.reply_to_annotation(house.actor(Role.ADMIN), thread["id"], mention(people[0]))
    await db.execute("UPDATE annotation_mentions SET created_at = created_at - interval '1 minute'")
    await threads.reply_to_annotation(member, thread["id"], mention(people[0]))


async def test_threads_comments_edits_and_emoji_have_limits(house: House) -> None:
    member = house.actor(Role.MEMBER)
    session = await a_session(member)
    thread, comment = await threads.create_annotation(member, session["id"], Place(), "First.")
    await db.execute("UPDATE annotation_threads SET comment_count = $2 WHERE id = $1", thread["id"], 500)
    with pytest.raises(LimitExceeded, match="500 comments"):
        await threads.reply_to_annotation(member, thread["id"], "One too many.")
    await db.execute("UPDATE annotation_threads SET number = 2000 WHERE id = $1", thread["id"])
    with pytest.raises(LimitExceeded, match="2,000"):
        await threads.create_annotation(member, session["id"], Place(), "One too many.")
    await db.execute("UPDATE annotation_comments SET revision_count = 100 WHERE id = $1", comment["id"])
    with pytest.raises(LimitExceeded, match="100 times"):
        await comments.edit_comment(member, comment["id"], "Once more.")
    await db.execute(
        "INSERT INTO annotation_reactions (id, comment_id, user_id, emoji, created_at) "
        "SELECT gen_random_uuid(), $1, $2, n::text, now() FROM generate_series(1, 50) AS n",
        comment["id"],
        member.user_id,
    )
    with pytest.raises(LimitExceeded, match="50"):
        await comments.react_to_comment(member, comment["id"], "👍")
    await comments.react_to_comment(house.actor(Role.ADMIN), comment["id"], "7")


async def test_a_message_that_is_being_written_has_no_ranges_yet(house: House) -> None:
    member = house.actor(Role.MEMBER)
    session = await a_session(member)
    message = await a_message(session, "", "STREAMING")
    with pytest.raises(IllegalTransition, match="still being written"):
        await threads.create_annotation(member, session["id"], Place(message_id=message, start=0, end=1), "Here.")
    thread, _ = await threads.create_annotation(member, session["id"], Place(message_id=message), "All of it.")
    assert thread["message_id"] == message


async def test_the_audit_log_tells_that_and_not_what(house: House) -> None:
    member = house.actor(Role.MEMBER)
    session = await a_session(member)
    thread, comment = await threads.create_annotation(member, session["id"], Place(), "A quokka.", ["zoo"])
    await comments.edit_comment(member, comment["id"], "Two quokkas.")
    await threads.resolve_annotation(member, thread["id"])
    await threads.resolve_annotation(member, thread["id"])
    await comments.delete_comment(member, comment["id"])
    [created] = await audited("annotation.create")
    assert (created["target_kind"], created["target_id"], created["session_id"]) == (
        "AnnotationThread",
        thread["id"],
        session["id"],
    )
    assert (created["after"]["characters"], created["after"]["labels"]) == (9, ["zoo"])
    [edited] = await audited("annotation.edit")
    assert (edited["before"]["characters"], edited["after"]["characters"]) == (9, 12)
    assert edited["before"] == {"characters": 9}
    [resolved] = await audited("annotation.resolve")
    assert (resolved["before"], resolved["after"]) == ({"status": "OPEN"}, {"status": "RESOLVED"})
    [deleted] = await audited("annotation.delete")
    assert deleted["before"]["characters"] == 12
    rows = await db.fetch("SELECT before, after, details FROM audit_records")
    kept = str([tuple(row) for row in rows])
    # Nor a digest, by which one could try what it was.
    for text in ("A quokka.", "Two quokkas."):
        assert sha256(text.encode()).hexdigest() not in kept
    assert "quokka" not in kept


async def test_a_fork_of_too_many_comments_is_refused(house: House) -> None:
    member = house.actor(Role.MEMBER)
    session = await a_session(member)
    message = await a_message(session)
    thread, _ = await threads.create_annotation(member, session["id"], Place(message_id=message), "Here.")
    await db.execute("UPDATE annotation_threads SET comment_count = 20001 WHERE id = $1", thread["id"])
    with pytest.raises(LimitExceeded, match="20,000 comments"):
        await fork_session(member, session["id"], message_id=None, title=None)


async def test_a_service_account_scores_as_an_evaluator(house: House) -> None:
    session = await a_session(house.actor(Role.MEMBER))
    robot = replace(house.actor(Role.MEMBER), kind=ActorKind.SERVICE)
    with pytest.raises(BadInput, match="evaluator"):
        await record_score(robot, NewScore(session["id"], "quality", number=1))
    score = await record_score(robot, NewScore(session["id"], "quality", number=1, evaluator="judge"))
    assert (score["source"], score["evaluator"]) == ("EVALUATOR", "judge")


async def test_whoever_belongs_to_nobody_says_nothing(house: House) -> None:
    session = await a_session(house.actor(Role.MEMBER))
    with pytest.raises(Forbidden):
        await threads.create_annotation(house.system, session["id"], Place(), "Beep.")
