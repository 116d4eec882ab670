"""What was terminated stays so, and what is over takes no changes."""

from __future__ import annotations

import pytest

from core import db
from core.errors import IllegalTransition
from core.permissions import Actor, Role
from services.sessions import lifecycle
from services.sessions.forking import fork_session
from services.sessions.lifecycle import NewSession, SessionChanges, create_session, update_session
from services.sessions.options import SessionOptions, load_options
from tests.services.identity_help import a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def actor(database: object) -> Actor:
    return (await a_house()).actor(Role.MEMBER)


async def test_the_options_of_a_terminated_session_stay_readable(actor: Actor) -> None:
    options = SessionOptions(max_turns=3)
    session = await create_session(actor, NewSession(options=options))
    ended = await lifecycle.terminate_session(actor, session["id"])
    assert load_options(ended["options"]) == options
    assert ended["terminated_at"] is not None
    fork = await fork_session(actor, session["id"], message_id=None, title=None)
    assert (fork["terminated_at"], fork["status"]) == (None, "CREATED")
    assert load_options(fork["options"]) == options


async def test_no_change_revives_what_was_terminated(actor: Actor) -> None:
    session = (await create_session(actor, NewSession()))["id"]
    terminated_at = (await lifecycle.terminate_session(actor, session))["terminated_at"]
    changes = SessionChanges(options=SessionOptions(max_turns=1), title="Not dead")
    with pytest.raises(IllegalTransition, match="fork it") as refused:
        await update_session(actor, session, changes)
    assert refused.value.details["status"] == "TERMINATED"
    archived = await lifecycle.archive_session(actor, session)
    assert (archived["terminated_at"], archived["options"]) == (terminated_at, {})
    with pytest.raises(IllegalTransition, match="fork it"):
        await update_session(actor, session, changes)
    with pytest.raises(IllegalTransition, match="terminated before"):
        await lifecycle.resume_session(actor, session)
    assert await db.fetchval("SELECT title FROM sessions WHERE id = $1", session) == "Untitled session"


async def test_an_archived_session_is_changed_once_it_is_back(actor: Actor) -> None:
    session = (await create_session(actor, NewSession()))["id"]
    await lifecycle.archive_session(actor, session)
    with pytest.raises(IllegalTransition, match="resumeSession first"):
        await update_session(actor, session, SessionChanges(title="Later"))
    await lifecycle.resume_session(actor, session)
    assert (await update_session(actor, session, SessionChanges(title="Later")))["title"] == "Later"
