"""Mail on its way out: at once or in a digest, tried again, given up, and never to who may not read it any more."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.ids import encode
from core.permissions import Actor, Origin, Role
from core.settings import Settings
from models.base import Row
from models.identity import UserRow
from models.notifications import EmailMode, NotificationKind
from models.sessions import Visibility
from resolvers.notifications import NO_ACCESS, body_of, title_of
from services.annotations.comments import delete_comment
from services.annotations.places import Place
from services.annotations.threads import create_annotation
from services.handoffs import offer_handoff
from services.identity.accounts import create_user, update_user
from services.identity.actors import actor_of_user
from services.notifications import delivery
from services.notifications.delivery import Deliverer, deliver_once
from services.notifications.inbox import KEPT_DAYS, mark_read, prune_notifications
from services.notifications.preferences import PreferenceChange, update_preferences
from services.notifications.recipients import may_see
from services.notifications.telling import MOST_MAILED
from services.parts import install, parts
from services.sessions.lifecycle import NewSession, SessionChanges, create_session, update_session
from services.work import write
from tests.conftest import environment_for, free_port, running
from tests.fakes.mail_server import MailServer
from tests.fakes.puppet import wait_for
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio

KIND = NotificationKind.MENTION


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def settings_for_tests(settings_for_tests: Settings, mail: MailServer) -> Settings:
    return Settings(**dict(settings_for_tests) | {"smtp_url": mail.url, "smtp_from": "q@tests.example"})


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


async def told(
    house: House,
    *roles: Role,
    by: Role = Role.ADMIN,
    session: UUID | None = None,
    kind: NotificationKind = KIND,
    title: str = "You were mentioned",
    body: str = "",
) -> list[Row]:
    """The notifications that a write about a session (or about none) makes."""
    async with write(house.actor(by), None) as work:
        if session is not None:
            await work.hold_session(session)
        work.notify(kind, [house.users[role]["id"] for role in roles], title, body=body)
    return await db.fetch("SELECT * FROM notifications ORDER BY created_at, id", row=Row)


async def deliveries() -> list[Row]:
    return await db.fetch("SELECT * FROM notification_deliveries ORDER BY created_at, id", row=Row)


async def statuses() -> list[str]:
    return [row["status"] for row in await deliveries()]


async def is_due() -> None:
    """As if the time of everything that waits had come, and the claims of dead workers had run out."""
    await db.execute("UPDATE notification_deliveries SET next_attempt_at = now(), claimed_until = NULL")


async def prefer(actor: Actor, email: EmailMode, **more: Any) -> None:
    await update_preferences(actor, [PreferenceChange(KIND, email=email, **more)])


# -- who is told


async def test_whoever_may_see_the_session_is_told_but_not_who_acts(house: House) -> None:
    session = (await create_session(house.actor(Role.MEMBER), NewSession(title="Private")))["id"]
    everybody = tuple(Role)
    rows = await told(house, *everybody, *everybody, session=session, by=Role.ADMIN)
    names = {house.users[role]["id"]: role for role in Role}
    assert sorted(names[row["user_id"]] for row in rows) == [Role.MEMBER, Role.OWNER]
    async with db.transaction() as tx:
        seeing = await may_see(tx, session, [house.users[role]["id"] for role in Role])
    assert {names[id_] for id_ in seeing} == {Role.OWNER, Role.ADMIN, Role.MEMBER}
    await update_session(house.actor(Role.MEMBER), session, SessionChanges(visibility=Visibility.ORGANIZATION))
    await update_user(house.actor(Role.OWNER), house.users[Role.ADMIN]["id"], active=False)
    await db.execute("DELETE FROM notifications")
    rows = await told(house, *everybody, session=session, by=Role.MEMBER)
    assert sorted(names[row["user_id"]] for row in rows) == [Role.OWNER, Role.VIEWER]


async def test_nobody_of_another_organisation_is_told_and_long_texts_are_cut(house: House) -> None:
    other = await a_house("Elsewhere")
    async with write(house.actor(Role.ADMIN), None) as work:
        work.notify(KIND, [other.users[Role.OWNER]["id"], UUID(int=1)], "x")
        work.notify(KIND, [house.users[Role.OWNER]["id"]], "a\nb " * 500, body="y" * 5000)
    [row] = await db.fetch("SELECT * FROM notifications", row=Row)
    assert (len(row["title"]), len(row["body"])) == (300, 2000)
    assert row["title"].startswith("a b a b")


async def test_a_write_that_tells_nobody_costs_no_statement(house: House) -> None:
    seen: list[str] = []
    token = db.queries_seen.set(seen)
    try:
        session = (await create_session(house.actor(Role.MEMBER), NewSession(title="Quiet")))["id"]
        assert not any("notifications" in statement for statement in seen)
        seen.clear()
        await told(house, *Role, session=session)
        assert sum("INSERT INTO notifications" in statement for statement in seen) == 1
    finally:
        db.queries_seen.reset(token)


async def test_without_a_mail_server_nothing_is_queued(house: House) -> None:
    install(replace(parts(), notifiers={}))
    assert len(await told(house, Role.MEMBER, Role.OWNER)) == 2
    assert await deliveries() == []
    # Who wants it by mail only gets nothing then; not even a row.
    await prefer(house.actor(Role.MEMBER), EmailMode.IMMEDIATE, in_app=False)
    assert len(await told(house, Role.MEMBER)) == 2


# -- at once


async def test_a_mail_is_sent_once_by_however_many_workers(house: House, mail: MailServer) -> None:
    await told(house, Role.MEMBER, title="Look at this", body="In detail")
    await told(house, Role.OWNER)
    await asyncio.gather(*(deliver_once() for _ in range(4)))
    assert sorted(mail.recipients) == ["member@acme.example", "owner@acme.example"]
    assert await statuses() == ["SENT", "SENT"]
    assert await deliver_once() == 0
    [seen] = [one for one in mail.mails if one["Subject"] == "Look at this"]
    [row] = [row for row in await deliveries() if row["user_id"] == house.users[Role.MEMBER]["id"]]
    assert seen["Message-ID"] == f"<{row['id']}@tests.example>"
    assert "In detail" in seen.get_body(("plain",)).get_content()  # type: ignore[union-attr]


async def test_what_is_refused_for_now_is_tried_again_and_what_is_refused_for_good_is_not(
    house: House, mail: MailServer
) -> None:
    mail.answers = ["451 Later", "554 Never"]
    await told(house, Role.MEMBER)
    await deliver_once()
    [row] = await deliveries()
    assert (row["status"], row["attempts"], row["claimed_until"]) == ("PENDING", 1, None)
    assert "451" in row["last_error"]
    assert await deliver_once() == 0, "not before its time"
    await is_due()
    await deliver_once()
    [row] = await deliveries()
    assert (row["status"], row["attempts"]) == ("FAILED", 2)
    assert "554" in row["last_error"]
    await is_due()
    assert await deliver_once() == 0
    assert mail.mails == []


async def test_waits_grow_and_attempts_end(house: House, mail: MailServer) -> None:
    await told(house, Role.MEMBER)
    waits = []
    for _ in range(delivery.MOST_ATTEMPTS):
        mail.answers = ["451 Later"]
        await is_due()
        await deliver_once()
        waits.append(
            await db.fetchval("SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM notification_deliveries")
        )
    assert await statuses() == ["FAILED"]
    assert 10 < waits[0] < 50
    assert 1500 < waits[7] < 5500
    assert max(waits) < 5500


async def test_a_server_that_is_away_loses_nothing(house: House, mail: MailServer) -> None:
    port = mail.port
    mail.stop()
    await told(house, Role.MEMBER, title="While you were out")
    await deliver_once()
    assert await statuses() == ["PENDING"]
    with MailServer(port) as back:
        await is_due()
        await deliver_once()
        assert [one["Subject"] for one in back.mails] == ["While you were out"]
    assert await statuses() == ["SENT"]


async def test_one_bad_address_does_not_keep_the_others_waiting(house: House, mail: MailServer) -> None:
    await db.execute("UPDATE users SET email = 'no address' WHERE id = $1", house.users[Role.OWNER]["id"])
    await told(house, Role.OWNER, Role.MEMBER)
    await deliver_once()
    assert sorted(await statuses()) == ["FAILED", "SENT"]
    assert mail.recipients == ["member@acme.example"]


async def test_what_must_not_be_told_any_more_is_left_out(house: House, mail: MailServer) -> None:
    owner, admin = house.actor(Role.MEMBER), house.actor(Role.ADMIN)
    session = (await create_session(owner, NewSession(visibility=Visibility.ORGANIZATION)))["id"]
    await told(house, Role.VIEWER, session=session, title="access ends")
    await update_session(owner, session, SessionChanges(visibility=Visibility.PRIVATE))
    [row] = await told(house, session=session)
    await told(house, Role.OWNER, title="read at once")
    rows = await db.fetch("SELECT * FROM notifications WHERE title = 'read at once'", row=Row)
    await mark_read(house.actor(Role.OWNER), [rows[0]["id"]])
    await told(house, Role.MEMBER, title="no mail any more")
    await prefer(owner, EmailMode.OFF)
    await deliver_once()
    assert mail.mails == []
    assert await statuses() == ["SKIPPED"] * 3
    assert {row["last_error"].split(" ", 2)[2] for row in await deliveries()} == {
        "may not see the session any more.",
        "been read.",
        "wants no mail of this kind any more.",
    }
    await told(house, Role.VIEWER, title="who is gone")
    await update_user(admin, house.users[Role.VIEWER]["id"], active=False)
    await deliver_once()
    assert (await statuses())[-1] == "SKIPPED"
    assert row["title"] == "access ends"


async def test_a_deleted_comment_is_not_mailed(house: House, mail: MailServer) -> None:
    member = house.actor(Role.MEMBER)
    session = (await create_session(member, NewSession(visibility=Visibility.ORGANIZATION)))["id"]
    text = f"@[x]({encode('usr', house.users[Role.OWNER]['id'])}) the code is 4711"
    for _ in range(2):
        _, comment = await create_annotation(member, session, Place(), text)
    await delete_comment(member, comment["id"])
    assert await statuses() == ["PENDING", "SKIPPED"]
    # Also where the comment went while the mail was already in a worker's hands.
    await db.execute("UPDATE notification_deliveries SET status = 'PENDING', last_error = NULL")
    await deliver_once()
    assert await statuses() == ["SENT", "SKIPPED"]
    assert (await deliveries())[1]["last_error"] == "The comment was deleted."
    assert len(mail.mails) == 1
    bodies = await db.fetch("SELECT body FROM notifications ORDER BY id")
    assert [row["body"] for row in bodies] == ["@Demo Owner the code is 4711", ""]


async def test_a_handoff_is_told_to_a_receiver_who_does_not_see_the_session(house: House, mail: MailServer) -> None:
    member = house.actor(Role.MEMBER)
    other = (await create_user(house.system, name="Another Member", email="another@acme.example"))["id"]
    session = (await create_session(member, NewSession(title="Yours soon")))["id"]
    await offer_handoff(member, session, other, note="Please")
    await deliver_once()
    [seen] = mail.mails
    assert seen["Subject"] == "Demo Member offers you “Yours soon”"


async def test_by_mail_only_is_not_in_the_inbox(house: House, mail: MailServer) -> None:
    await prefer(house.actor(Role.MEMBER), EmailMode.IMMEDIATE, in_app=False)
    [row] = await told(house, Role.MEMBER)
    assert row["in_app"] is False
    await deliver_once()
    assert len(mail.mails) == 1


async def test_what_one_author_does_is_mailed_to_so_many_a_minute_and_told_to_all(house: House) -> None:
    people = [
        (await create_user(house.system, name=f"P {n}", email=f"p{n}@acme.example", role=Role.VIEWER))["id"]
        for n in range(5)
    ]
    member = house.actor(Role.MEMBER)
    # By mail only: whoever is over the bound has it in the inbox all the same.
    await prefer(await user_actor(people[-1]), EmailMode.IMMEDIATE, in_app=False)

    async def tell(kind: NotificationKind, actor: Actor = member, author: UUID | None = None) -> tuple[int, list[bool]]:
        """How many mails it makes, and whether it is in the inboxes."""
        await db.execute("UPDATE notifications SET title = 'before'")
        before = len(await deliveries())
        async with write(actor, None) as work:
            work.notify(kind, people, "now", author=author)
        rows = await db.fetch("SELECT in_app FROM notifications WHERE title = 'now' ORDER BY id")
        return len(await deliveries()) - before, [row["in_app"] for row in rows]

    await db.execute("DELETE FROM notifications")
    kinds = (NotificationKind.SHARE, NotificationKind.HANDOFF, NotificationKind.REPLY)
    for number in range(11):
        assert await tell(kinds[number % 3]) == (5, [True] * 5)
    assert await tell(KIND) == (5, [True] * 4 + [False])
    assert len(await deliveries()) == MOST_MAILED == 60
    assert await tell(KIND) == (0, [True] * 5)
    assert await tell(NotificationKind.SHARE) == (0, [True] * 5)
    assert await tell(NotificationKind.MONITOR, house.system, member.user_id) == (0, [True] * 5), "their doing, too"
    # Neither another author nor Quarterdeck itself is kept from anything, and a minute later nobody is.
    assert await tell(KIND, house.actor(Role.ADMIN)) == (5, [True] * 4 + [False])
    assert await tell(KIND, house.system) == (5, [True] * 4 + [False])
    await db.execute("UPDATE notifications SET created_at = created_at - interval '1 minute' WHERE kind = 'REPLY'")
    await asyncio.gather(*(tell_alone(member, people) for _ in range(6)))
    recent = "SELECT count(*) FROM notification_deliveries JOIN notifications ON notifications.id = notification_id "
    found = await db.fetchval(
        f"{recent} WHERE actor_id = $1 AND notifications.created_at > now() - interval '1 minute'", member.user_id
    )
    assert found == MOST_MAILED, "writes at once are counted one after the other"


async def tell_alone(actor: Actor, people: list[UUID]) -> None:
    async with write(actor, None) as work:
        work.notify(NotificationKind.SHARE, people, "at once")


async def user_actor(user_id: UUID) -> Actor:
    row = await db.fetchrow("SELECT * FROM users WHERE id = $1", user_id, row=UserRow)
    assert row is not None
    return actor_of_user(row, None, Origin())


async def test_a_page_of_the_inbox_asks_once_what_may_be_told(house: House) -> None:
    member, reader = house.actor(Role.MEMBER), house.actor(Role.VIEWER)
    made = [await create_session(member, NewSession(visibility=Visibility.ORGANIZATION)) for _ in range(3)]
    for session in made:
        rows = await told(house, Role.VIEWER, session=session["id"], by=Role.MEMBER, title="Told", body="So")
    await update_session(member, made[1]["id"], SessionChanges(visibility=Visibility.PRIVATE))
    seen: list[str] = []
    token = db.queries_seen.set(seen)
    try:
        assert await title_of(reader, rows, {}) == ["Told", NO_ACCESS, "Told"]
        assert await body_of(reader, rows, {}) == ["So", "", "So"]
        assert len(seen) == 2
    finally:
        db.queries_seen.reset(token)


# -- digests


async def test_a_digest_has_all_that_waits_and_nothing_that_was_read(house: House, mail: MailServer) -> None:
    member, owner = house.actor(Role.MEMBER), house.actor(Role.OWNER)
    for actor in (member, owner):
        await prefer(actor, EmailMode.DIGEST)
    for number in range(3):
        await told(house, Role.MEMBER, Role.OWNER, title=f"Number {number}")
    assert await deliver_once() == 0, "it waits for its hour"
    [due] = await db.fetch(
        "SELECT DISTINCT extract(epoch FROM next_attempt_at - created_at) AS s FROM notification_deliveries"
    )
    assert due["s"] == 3600
    read = await db.fetchval("SELECT id FROM notifications WHERE title = 'Number 1' AND user_id = $1", member.user_id)
    await mark_read(member, [read])
    # The first of each has waited long enough; what came later goes along.
    await db.execute(
        "UPDATE notification_deliveries SET next_attempt_at = now() WHERE notification_id IN "
        "(SELECT id FROM notifications WHERE title = 'Number 0')"
    )
    await asyncio.gather(*(deliver_once() for _ in range(3)))
    assert sorted(mail.recipients) == ["member@acme.example", "owner@acme.example"]
    texts = {one["To"]: one.get_body(("plain",)).get_content() for one in mail.mails}  # type: ignore[union-attr]
    by_role = {"member" if "member@" in to else "owner": text for to, text in texts.items()}
    assert [f"Number {n}" in by_role["member"] for n in range(3)] == [True, False, True]
    assert [f"Number {n}" in by_role["owner"] for n in range(3)] == [True, True, True]
    assert {one["Subject"] for one in mail.mails} == {"2 things in Quarterdeck", "3 things in Quarterdeck"}
    assert sorted(await statuses()) == ["SENT"] * 5 + ["SKIPPED"]


async def test_a_digest_that_fails_comes_later_with_what_has_come_since(house: House, mail: MailServer) -> None:
    await prefer(house.actor(Role.MEMBER), EmailMode.DIGEST)
    await told(house, Role.MEMBER, title="First")
    await is_due()
    mail.answers = ["451 Later"]
    await deliver_once()
    await told(house, Role.MEMBER, title="Second")
    await db.execute("UPDATE notification_deliveries SET next_attempt_at = now() WHERE attempts > 0")
    await deliver_once()
    [seen] = mail.mails
    assert seen["Subject"] == "2 things in Quarterdeck"
    # One that nothing can be said of any more is no mail.
    await told(house, Role.MEMBER, title="Third")
    await db.execute("UPDATE notifications SET read_at = now()")
    await is_due()
    await deliver_once()
    assert len(mail.mails) == 1


async def test_a_long_digest_is_cut(house: House, mail: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MOST_IN_A_DIGEST", 2)
    await prefer(house.actor(Role.MEMBER), EmailMode.DIGEST)
    for number in range(5):
        await told(house, Role.MEMBER, title=f"Number {number}")
    await is_due()
    await deliver_once()
    [seen] = mail.mails
    assert seen["Subject"] == "5 things in Quarterdeck"
    text = seen.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert [f"Number {n}" in text for n in range(5)] == [False, False, False, True, True]
    assert "And 3 more" in text


# -- workers


async def test_a_worker_sends_what_comes_as_it_comes(house: House, mail: MailServer, database: Program) -> None:
    deliverer = Deliverer()
    deliverer.start()
    try:
        for number in range(5):
            await told(house, Role.MEMBER, title=f"Number {number}")
        await wait_for(lambda: all_sent(5))
        assert sorted(one["Subject"] for one in mail.mails) == [f"Number {n}" for n in range(5)]
    finally:
        async with asyncio.timeout(10):
            await deliverer.stop()


async def all_sent(count: int) -> bool:
    return (await statuses()) == ["SENT"] * count


async def test_what_a_killed_worker_had_in_hand_is_sent_by_another(
    house: House, mail: MailServer, database_url: str, tmp_path: Path
) -> None:
    mail.hang = True
    environment = environment_for(
        database_url,
        tmp_path / "worker",
        free_port(),
        "t" * 40,
        QUARTERDECK_SMTP_URL=mail.url,
        QUARTERDECK_SMTP_FROM="q@tests.example",
    )
    await told(house, Role.MEMBER, title="In the hands of a dead worker")
    with running("worker", environment, tmp_path / "logs") as process:
        await wait_for(lambda: reached(mail), within=60)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    mail.hang = False
    [row] = await deliveries()
    assert (row["status"], row["attempts"]) == ("PENDING", 1)
    assert await deliver_once() == 0, "the claim may still be alive"
    await db.execute("UPDATE notification_deliveries SET claimed_until = now() - interval '1 second'")
    await deliver_once()
    assert [one["Subject"] for one in mail.mails] == ["In the hands of a dead worker"]
    assert (await deliveries())[0]["attempts"] == 2


async def reached(mail: MailServer) -> bool:
    return mail.attempts > 0


async def test_old_notifications_are_removed_with_their_deliveries(house: House) -> None:
    [kept] = await told(house, Role.MEMBER)
    old = UUID(int=kept["id"].int - ((KEPT_DAYS + 1) * 86_400_000 << 80))
    await db.execute("DELETE FROM notification_deliveries")
    await db.execute("UPDATE notifications SET id = $1", old)
    await told(house, Role.OWNER)
    await prune_notifications()
    assert [row["user_id"] for row in await db.fetch("SELECT * FROM notifications", row=Row)] == [
        house.users[Role.OWNER]["id"]
    ]
