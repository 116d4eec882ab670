"""The stream of a session loses, repeats and disorders nothing, wherever it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

import pytest

from app.wiring import Program, working
from core import db
from core.errors import BadInput, CursorExpired, NotFound
from core.paging import encode_cursor
from core.permissions import Actor, Role
from integrations.agents.base import RuntimeEvent, TextDelta, TextEnded, TextStarted
from models.sessions import Visibility
from services.parts import parts
from services.sessions.lifecycle import NewSession, SessionChanges, create_session, update_session
from services.sessions.messages import send_message
from services.work import session_channel
from subscriptions.sessions import SessionEvent, event_cursor, session_events
from tests.fakes.puppet import Puppet, Strings, end, wait_for
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def puppet(database: Program) -> AsyncIterator[Puppet]:
    puppet = Puppet()
    database.parts.runtimes[puppet.name] = puppet  # type: ignore[index]
    async with working(database):
        yield puppet


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


@pytest.fixture
def actor(house: House) -> Actor:
    return house.actor(Role.MEMBER)


async def read(actor: Actor, session: UUID, after: str | None, runs: int = 1) -> list[SessionEvent]:
    """The stream's events until so many runs have ended."""
    found: list[SessionEvent] = []
    async with asyncio.timeout(20), aclosing(session_events(actor, session, after)) as events:  # type: ignore[type-var]
        async for event in events:
            found.append(event)
            runs -= event.type in ("RUN_FINISHED", "RUN_ERROR")
            if not runs:
                return found
    raise AssertionError("the stream ended by itself")


def whole(prefix: list[SessionEvent], rest: list[SessionEvent]) -> None:
    """Both together are one stream: numbers without gaps, pieces that fit on, texts as they ended."""
    seq = 0
    have: dict[str, str] = {}
    for event in prefix + rest:
        if event.type == "TEXT_MESSAGE_CONTENT":
            message, delta = event.data["messageId"], event.delta or ""
            assert event.offset == len(have.get(message, "")), "a piece was lost or came twice"
            have[message] = have.get(message, "") + delta
            assert event.seq == seq
        else:
            assert event.seq == seq + 1, "an event was lost or came twice"
            seq = event.seq
            if event.type == "TEXT_MESSAGE_END":
                assert have.get(event.data["messageId"], "") == event.data["text"]


async def test_any_cut_of_a_stream_and_what_follows_it_are_the_whole(puppet: Puppet, actor: Actor) -> None:
    """Read live by one, cut after every single event by others, some of whom come back while it is written."""

    async def two_at_a_time(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        yield TextStarted("a")
        yield TextStarted("b", reasoning=True)
        for number in range(12):
            yield TextDelta("a", f"word{number} ")
            yield TextDelta("b", "🙂ä" * 3)
            await asyncio.sleep(0.03)
        yield TextEnded("b")
        yield TextDelta("a", "the end")
        yield TextEnded("a")
        yield end()

    puppet.segment = two_at_a_time
    session = (await create_session(actor, NewSession(runtime="puppet", message="go")))["id"]
    live: list[SessionEvent] = []
    returning: list[asyncio.Task[list[SessionEvent]]] = []
    async with asyncio.timeout(20), aclosing(session_events(actor, session, None)) as events:  # type: ignore[type-var]
        async for event in events:
            live.append(event)
            # They come back at once, in the middle of what is being written.
            returning.append(asyncio.create_task(read(actor, session, event.cursor)))
            if event.type == "RUN_FINISHED":
                break
    returning.pop().cancel()
    assert sum(event.type == "TEXT_MESSAGE_CONTENT" for event in live) > 10, "it was not told as it was written"
    whole(live, [])
    for cut, rest in enumerate(await asyncio.gather(*returning), start=1):
        whole(live[:cut], rest)
    for cut in range(len(live) - 1):
        whole(live[:cut], await read(actor, session, live[cut - 1].cursor if cut else None))


async def test_who_comes_in_the_middle_gets_the_text_so_far_and_what_follows(puppet: Puppet, actor: Actor) -> None:
    """Without waiting for a pause of the writer, and without waiting for its next word."""
    go_on = asyncio.Event()

    async def chatty(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        yield TextStarted("m")
        for _ in range(20):
            yield TextDelta("m", "before ")
            await asyncio.sleep(0.01)
        while not go_on.is_set():
            yield TextDelta("m", "during ")
            await asyncio.sleep(0.01)
        yield TextEnded("m")
        yield end()

    puppet.segment = chatty
    session = (await create_session(actor, NewSession(runtime="puppet", message="go")))["id"]
    await wait_for(lambda: db.fetchval("SELECT 1 FROM message_progress WHERE text LIKE '%during%'"))
    # One that reads the list first, and one that reads all.
    seq = await db.fetchval("SELECT last_event_seq FROM sessions WHERE id = $1", session)
    for after in (event_cursor(seq), None):
        text = ""
        async with asyncio.timeout(10), aclosing(session_events(actor, session, after)) as events:  # type: ignore[type-var]
            pieces = 0
            async for event in events:
                if event.type == "TEXT_MESSAGE_CONTENT":
                    assert event.offset == len(text)
                    text += event.delta or ""
                    pieces += 1
                if pieces > 20:
                    break
        assert text.startswith("before " * 20 + "during ")
    go_on.set()


async def test_who_comes_while_the_writer_is_silent_has_all_that_was_written(puppet: Puppet, actor: Actor) -> None:
    go_on = asyncio.Event()

    async def silent(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        yield TextStarted("m")
        yield TextDelta("m", "Let me think")
        await go_on.wait()
        yield TextDelta("m", ": done.")
        yield TextEnded("m")
        yield end()

    puppet.segment = silent
    session = (await create_session(actor, NewSession(runtime="puppet", message="go")))["id"]
    await wait_for(lambda: db.fetchval("SELECT 1 FROM messages WHERE status = 'STREAMING'"))
    async with asyncio.timeout(10), aclosing(session_events(actor, session, None)) as events:  # type: ignore[type-var]
        text = ""
        async for event in events:
            text += event.delta or ""
            if text == "Let me think":
                go_on.set()
            if event.type == "RUN_FINISHED":
                break
    assert text == "Let me think: done."


async def test_many_writers_and_many_readers(puppet: Puppet, actor: Actor, house: House) -> None:
    session = (await create_session(actor, NewSession(runtime="puppet")))["id"]
    readers = [asyncio.create_task(read(actor, session, None, runs=20)) for _ in range(5)]

    async def writer(one: Actor) -> None:
        for number in range(10):
            await send_message(one, session, f"{one.name} {number}")

    await asyncio.gather(writer(actor), writer(house.actor(Role.ADMIN)))
    streams = await asyncio.gather(*readers)
    for stream in streams:
        whole(stream, [])
    assert len({tuple(event.seq for event in stream) for stream in streams}) == 1
    # Each writer's messages are worked on in their order.
    sent = [event.data["text"] for event in streams[0] if event.name == "quarterdeck.message.sent"]
    for name in (actor.name, house.actor(Role.ADMIN).name):
        assert [text for text in sent if text.startswith(name)] == [f"{name} {number}" for number in range(10)]


async def test_a_lost_notice_costs_time_and_no_event(puppet: Puppet, actor: Actor) -> None:
    session = (await create_session(actor, NewSession(runtime="puppet")))["id"]
    async with asyncio.timeout(30), aclosing(session_events(actor, session, None)) as events:  # type: ignore[type-var]
        first = await anext(events)
        # As if the process had died between its commit and its notice.
        await db.execute("UPDATE sessions SET last_event_seq = 3 WHERE id = $1", session)
        await db.execute(
            "INSERT INTO session_events (session_id, seq, organization_id, at, type, name, actor_kind, data) "
            "SELECT $1, seq, $2, now(), 'CUSTOM', 'quarterdeck.test', 'SYSTEM', '{}' FROM generate_series(2, 3) seq",
            session,
            actor.organization_id,
        )
        await parts().bus.publish(session_channel(session), {"seq": 3})
        assert [first.seq, (await anext(events)).seq, (await anext(events)).seq] == [1, 2, 3]


async def test_a_reader_that_lags_behind_catches_up_from_the_log(puppet: Puppet, actor: Actor) -> None:
    """More notices than the queue takes are no loss."""
    session = (await create_session(actor, NewSession(runtime="puppet")))["id"]
    async with asyncio.timeout(30), aclosing(session_events(actor, session, None)) as events:  # type: ignore[type-var]
        found = [await anext(events)]
        for _ in range(parts().settings.subscription_queue_size + 10):
            await parts().bus.publish(session_channel(session), {"seq": 0})
        await send_message(actor, session, "after the flood")
        while found[-1].type != "RUN_FINISHED":
            found.append(await anext(events))
    whole(found, [])


# -- whose it is not


async def test_a_stream_ends_when_its_session_is_withdrawn(puppet: Puppet, house: House) -> None:
    owner, viewer = house.actor(Role.MEMBER), house.actor(Role.VIEWER)
    session = (await create_session(owner, NewSession(runtime="puppet", visibility=Visibility.ORGANIZATION)))["id"]
    async with asyncio.timeout(10), aclosing(session_events(viewer, session, None)) as events:  # type: ignore[type-var]
        assert (await anext(events)).name == "quarterdeck.session.created"
        await update_session(owner, session, SessionChanges(visibility=Visibility.PRIVATE))
        await send_message(owner, session, "secret")
        with pytest.raises(NotFound, match="no longer"):
            await anext(events)


async def test_what_one_may_not_see_is_not_found(puppet: Puppet, house: House) -> None:
    session = (await create_session(house.actor(Role.MEMBER), NewSession(runtime="puppet")))["id"]
    for actor in (house.actor(Role.VIEWER), (await a_house("Elsewhere")).actor(Role.OWNER)):
        with pytest.raises(NotFound):
            await anext(session_events(actor, session, None))


async def test_cursors_that_are_none(puppet: Puppet, actor: Actor) -> None:
    session = (await create_session(actor, NewSession(runtime="puppet")))["id"]
    for after, error in (
        ("nonsense", BadInput),
        ("", BadInput),
        (encode_cursor(1), BadInput),
        (encode_cursor(-1, {}), BadInput),
        (encode_cursor("1", {}), BadInput),
        (encode_cursor(1, {"msg_bad": 1}), BadInput),
        (encode_cursor(1, {"msg_01k00000000000000000000000": -1}), BadInput),
        (encode_cursor(1, {f"msg_{n:026}": 1 for n in range(101)}), BadInput),
        (encode_cursor(99, {}), CursorExpired),
        (encode_cursor(2**64 - 1, {}), CursorExpired),
    ):
        with pytest.raises(error):
            await anext(session_events(actor, session, after))
