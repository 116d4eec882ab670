"""Who is in a session: seen by the others at once, told in bounded portions, and stored nowhere."""

from __future__ import annotations

import asyncio
import os
import time

import psycopg
import pytest

from tests.app.conftest import People
from tests.clients_of_graph import Refused
from tests.conftest import Server
from tests.talking import UPDATE, create, eventually, send
from tests.together import UPDATE_PRESENCE, being_in, participants, update

pytestmark = pytest.mark.anyio


async def test_who_follows_a_session_is_there_until_they_leave(people: People) -> None:
    member, admin = people.member, people.admin
    session = (await create(member.client))["id"]
    async with being_in(member.client, session, "tab-1") as mine:
        await mine.until_here(lambda here: set(here) == {"tab-1"})
        async with being_in(admin.client, session, "phone") as theirs:
            await mine.until_here(lambda here: set(here) == {"tab-1", "phone"})
            await theirs.until_here(lambda here: set(here) == {"tab-1", "phone"})
            assert mine.here["phone"]["user"] == {"name": admin.name}
            assert mine.here["phone"]["state"] == "VIEWING"
            seen = await participants(people.member.client, session)
            assert [(one["userId"], one["clientId"]) for one in seen] == [(member.id, "tab-1"), (admin.id, "phone")]
            # The same client a second time is one participant, and stays for the stream that is left.
            async with being_in(admin.client, session, "phone") as again:
                await again.until_here(lambda here: len(here) == 2)
            assert len(await participants(member.client, session)) == 2
        await mine.until_here(lambda here: set(here) == {"tab-1"})
    await eventually(lambda: _nobody(people, session))


async def _nobody(people: People, session: str) -> bool:
    return await participants(people.member.client, session) == []


async def test_what_they_do_is_told_and_typing_ends_by_itself(people: People) -> None:
    session = (await create(people.member.client))["id"]
    sent = await send(people.member.client, session, "hello")
    async with (
        being_in(people.member.client, session, "mine") as mine,
        being_in(people.admin.client, session, "theirs"),
    ):
        await mine.until_here(lambda here: len(here) == 2)
        said = await update(people.admin.client, session, "theirs", "TYPING", messageId=sent["message"]["id"])
        assert (said["state"], said["messageId"]) == ("TYPING", sent["message"]["id"])
        await mine.until_here(lambda here: here["theirs"]["state"] == "TYPING", within=3)
        assert mine.here["theirs"]["messageId"] == sent["message"]["id"]
        began = time.monotonic()
        await mine.until_here(lambda here: here["theirs"]["state"] == "VIEWING", within=15)
        assert time.monotonic() - began > 4
        await update(people.admin.client, session, "theirs", "IDLE")
        await mine.until_here(lambda here: here["theirs"]["state"] == "IDLE", within=3)


async def test_somebody_without_a_stream_is_there_by_what_they_say(people: People) -> None:
    session = (await create(people.member.client))["id"]
    async with being_in(people.member.client, session, "mine") as mine:
        await update(people.admin.client, session, "cli", "IDLE")
        await mine.until_here(lambda here: here.get("cli", {}).get("state") == "IDLE", within=3)


async def test_drafts_and_cursors_are_relayed_and_stored_nowhere(people: People, server: Server) -> None:
    session = (await create(people.member.client))["id"]
    sent = await send(people.member.client, session, "select some of this")
    secret = "unsaid-" + os.urandom(6).hex()
    async with (
        being_in(people.member.client, session, "mine") as mine,
        being_in(people.admin.client, session, "theirs"),
    ):
        await mine.until_here(lambda here: len(here) == 2)
        for length in (1, 8, len(secret)):
            await update(people.admin.client, session, "theirs", "TYPING", draft=secret[:length])
        await mine.until(lambda _: mine.drafts.get("theirs", {}).get("text") == secret, within=5)
        assert mine.drafts["theirs"]["user"] == {"name": people.admin.name}
        place = {"messageId": sent["message"]["id"], "start": 7, "end": 11}
        await update(people.admin.client, session, "theirs", cursor=place)
        await mine.until(lambda _: mine.drafts["theirs"]["cursor"] == place, within=5)
        # Somebody who comes while it is written sees it.
        await update(people.admin.client, session, "theirs", "TYPING", draft=secret)
        await mine.until(lambda _: mine.drafts["theirs"]["text"] == secret, within=5)
        async with being_in(people.member.client, session, "late") as late:
            await late.until(lambda _: late.drafts.get("theirs", {}).get("text") == secret, within=5)
    with psycopg.connect(server.environment["QUARTERDECK_DATABASE_URL"]) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            found = connection.execute(
                psycopg.sql.SQL("SELECT count(*) FROM {} AS it WHERE strpos(it::text, %s) > 0").format(
                    psycopg.sql.Identifier(table)
                ),
                [secret[:12]],
            ).fetchone()
            assert found == (0,), table
    assert secret[:12] not in server.log


async def test_what_makes_no_sense_is_refused(people: People) -> None:
    client = people.member.client
    session, other = (await create(client))["id"], (await create(client))["id"]
    foreign = (await create(people.colleague.client))["id"]
    elsewhere = await send(client, other, "in another session")
    unknown = elsewhere["message"]["id"][:-4] + "0000"
    given = {"sessionId": session, "clientId": "c", "state": "VIEWING"}
    for more, code, field in (
        ({"sessionId": foreign}, "NOT_FOUND", "sessionId"),
        ({"sessionId": session[:-4] + "0000"}, "NOT_FOUND", "sessionId"),
        ({"sessionId": "nonsense"}, "BAD_INPUT", "sessionId"),
        ({"clientId": ""}, "BAD_INPUT", "clientId"),
        ({"clientId": "x" * 65}, "BAD_INPUT", "clientId"),
        ({"clientId": "a\nb"}, "BAD_INPUT", "clientId"),
        ({"messageId": unknown}, "NOT_FOUND", "messageId"),
        ({"messageId": elsewhere["message"]["id"]}, "NOT_FOUND", "messageId"),
        ({"cursor": {"messageId": unknown, "start": 0, "end": 1}}, "NOT_FOUND", "cursor.messageId"),
        ({"cursor": {"start": 2, "end": 1}}, "BAD_INPUT", "cursor"),
        ({"cursor": {"start": -1, "end": 1}}, "BAD_INPUT", "cursor"),
        ({"draft": "x" * 2_001}, "TOO_LARGE", "draft"),
        ({"draft": "\U0001f600" * 2_000}, "TOO_LARGE", "draft"),
        ({"draft": "a\0b"}, "BAD_INPUT", "input.draft"),
        ({"state": "DANCING"}, "BAD_INPUT", None),
    ):
        refused = await client.refused(UPDATE_PRESENCE, input=given | more)
        assert (refused.codes, refused.extensions.get("field")) == ([code], field), more
    await update(client, session, "c", draft="ü" * 2_000)
    async with client.socket() as socket:
        for variables, code in (
            ({"id": foreign}, "NOT_FOUND"),
            ({"id": session, "client": "not a client's id"}, "BAD_INPUT"),
            ({"id": session, "after": "nonsense"}, "BAD_INPUT"),
            ({"id": session, "after": "WzksIHt9XQ"}, "CURSOR_EXPIRED"),
        ):
            stream = await socket.subscribe(
                "subscription ($id: ID!, $after: Cursor, $client: String) "
                "{ workspace(sessionId: $id, after: $after, clientId: $client) { __typename } }",
                **variables,
            )
            with pytest.raises(Refused) as refusal:
                raise AssertionError(await stream.next())
            assert refusal.value.codes == [code]


async def test_a_stranger_and_a_token_without_the_scope_see_nobody(people: People) -> None:
    session = (await create(people.member.client))["id"]
    async with being_in(people.member.client, session, "mine") as mine:
        await mine.until_here(lambda here: len(here) == 1)
        await mine.for_a_while(0.5)
        refused = await people.stranger.client.refused(
            UPDATE_PRESENCE, input={"sessionId": session, "clientId": "x", "state": "VIEWING"}
        )
        assert refused.codes == ["NOT_FOUND"]
        found = await people.stranger.client(
            "query ($id: ID!) { session(id: $id) { participants { userId } } }", id=session
        )
        assert found == {"session": None}
        assert await mine.for_a_while(1) == []


async def test_a_flood_of_updates_is_refused_and_told_in_bounded_portions(people: People) -> None:
    session = (await create(people.member.client))["id"]
    async with (
        being_in(people.member.client, session, "mine") as mine,
        being_in(people.admin.client, session, "theirs"),
    ):
        await mine.until_here(lambda here: len(here) == 2)
        states = ("VIEWING", "TYPING", "IDLE")

        async def flood() -> list[str]:
            async with people.admin.client.socket() as socket:
                streams = []
                for number in range(190):
                    given = {
                        "sessionId": session,
                        "clientId": "theirs",
                        "state": states[number % 3],
                        "draft": f"{number} " + "x" * 1_000,
                    }
                    streams.append(await socket.subscribe(UPDATE_PRESENCE, input=given))
                codes = []
                while len(codes) < len(streams):
                    message = await socket.message()
                    if message["type"] == "next":
                        errors = message["payload"].get("errors")
                        codes.append(errors[0]["extensions"]["code"] if errors else "")
                return codes

        began = time.monotonic()
        codes, told = await asyncio.gather(flood(), mine.for_a_while(2.0))
        seconds = max(2.0, time.monotonic() - began)
        assert codes.count("RATE_LIMITED") > 50
        assert codes.count("") + codes.count("RATE_LIMITED") == 190
        assert 0 < len(told) <= 2 * (4 * seconds + 2)


async def test_whose_access_ends_is_there_no_more(people: People) -> None:
    owner, reader = people.member.client, people.colleague.client
    session = (await create(owner, visibility="ORGANIZATION"))["id"]
    async with being_in(owner, session, "mine") as mine, being_in(reader, session, "theirs") as theirs:
        await update(people.viewer.client, session, "by-word")
        await mine.until_here(lambda here: set(here) == {"mine", "theirs", "by-word"})
        await owner(UPDATE, input={"sessionId": session, "visibility": "PRIVATE"})
        with pytest.raises(Refused, match="NOT_FOUND"):
            await theirs.until(lambda _: False)
        await mine.until_here(lambda here: set(here) == {"mine"}, within=12)
        refused = await people.viewer.client.refused(
            UPDATE_PRESENCE, input={"sessionId": session, "clientId": "by-word", "state": "VIEWING"}
        )
        assert refused.codes == ["NOT_FOUND"]


async def test_a_user_is_there_with_so_many_clients_and_no_more(people: People) -> None:
    session = (await create(people.member.client))["id"]
    async with people.member.client.socket() as socket:
        codes: list[str] = []
        for number in range(52):
            given = {"sessionId": session, "clientId": f"c{number}", "state": "IDLE"}
            stream = await socket.subscribe(UPDATE_PRESENCE, input=given)
            try:
                await stream.next()
            except Refused as refused:
                codes += refused.codes
            await socket.message()  # complete
            await asyncio.sleep(0.05)  # as often as is allowed
    assert codes == ["LIMIT_EXCEEDED"] * 2
    assert len(await participants(people.member.client, session)) == 50
