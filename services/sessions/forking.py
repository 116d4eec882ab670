"""A new session that goes on from a message of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from uuid import UUID

from core.errors import IllegalTransition, NotFound
from core.ids import encode, new_id
from core.permissions import Actor
from integrations.agents.base import RuntimeState
from models.base import Query
from models.sessions import MessageRow, Session, SessionRow
from services import idempotency
from services.parts import parts
from services.sessions.lifecycle import make_directory, read_in
from services.sessions.messages import add_message
from services.sessions.options import check_title
from services.work import Work, write


@dataclass(frozen=True, slots=True)
class _Cut:
    copied: Sequence[MessageRow]
    asked_again: MessageRow | None
    """A user's message that is the point of the fork: it is sent anew, and answered anew."""


async def fork_session(
    actor: Actor, session_id: UUID, *, message_id: UUID | None, title: str | None, key: str | None = None
) -> SessionRow:
    """A session of the actor's own with the conversation up to a message, the same options and servers, and a
    fresh working directory.

    At an agent's message the fork has the whole turn that the message belongs to. At a user's message the fork
    has what came before, and answers that message anew. Without a message it has all turns that have ended.
    """
    async with write(actor, "session.fork") as work:
        source = await _visible(work, session_id)
        found = await idempotency.claim(
            work, "forkSession", key, {"session": str(session_id), "message": str(message_id), "title": title}
        )
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            work.target("Session", found.earlier)
            return await read_in(work, found.earlier)
        cut = await _cut(work, source, message_id)
        state = await _state(work, source, cut)
        row = await _insert(
            work, source, found.result_id, check_title(title, default=f"Fork of {source['title']}"[:200]), message_id
        )
        work.hold_new_session(row)
        work.target("Session", row["id"], row["title"])
        work.changed(after={"forkedFrom": encode("ses", source["id"]), "messages": len(cut.copied)})
        work.emit("CUSTOM", {"from": encode("ses", source["id"])}, name="quarterdeck.session.forked")
        work.session_changed("CREATED")
        await _copy(work, row, cut.copied)
        if state is not None:
            await work.tx.execute(
                "INSERT INTO runtime_states (session_id, runtime, version, payload, updated_at) VALUES ($1, $2, $3, "
                "$4, $5)",
                row["id"],
                state.runtime,
                state.version,
                state.payload,
                work.at,
            )
        if cut.asked_again is not None:
            await add_message(work, row, cut.asked_again["text"], message_id=new_id())
        make_directory(row["organization_id"], row["id"])
        return await read_in(work, row["id"])


async def _visible(work: Work, session_id: UUID) -> SessionRow:
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM sessions WHERE id = {query.arg(session_id)} AND {query.scope(Session.visible_to(work.actor))}",
        *query.args,
        row=SessionRow,
    )
    if row is None:
        raise NotFound("There is no such session, or you may not see it.", field="sessionId")
    return row


async def _cut(work: Work, source: SessionRow, message_id: UUID | None) -> _Cut:
    # As the conversation went: a message that was sent while another was being answered comes after that answer.
    # What a fork copied has no run, and comes before all of them.
    messages = await work.tx.fetch(
        "SELECT messages.*, coalesce(runs.number, 0) AS turn, "
        "coalesce(runs.status IN ('QUEUED', 'RUNNING', 'WAITING'), false) AS run_open FROM messages "
        "LEFT JOIN runs ON runs.id = messages.run_id WHERE messages.session_id = $1 ORDER BY turn, messages.seq",
        source["id"],
        row=MessageRow,
    )
    ended = [message for message in messages if not message["run_open"]]
    if message_id is None:
        return _Cut(ended, None)
    point = next((message for message in messages if message["id"] == message_id), None)
    if point is None:
        raise NotFound("There is no such message in this session.", field="messageId")
    if point["role"] == "USER":
        return _Cut([m for m in ended if (m["turn"], m["seq"]) < (point["turn"], point["seq"])], point)
    if point["run_open"]:
        raise IllegalTransition(
            "The run of this message has not ended yet. Fork when it has, or interrupt it.", field="messageId"
        )
    if point["run_id"] is None:
        copied = [m for m in ended if m["turn"] == 0]
        asked_next = next((m["seq"] for m in copied if m["role"] == "USER" and m["seq"] > point["seq"]), None)
        return _Cut([m for m in copied if asked_next is None or m["seq"] < asked_next], None)
    return _Cut([m for m in ended if m["turn"] <= point["turn"]], None)


async def _state(work: Work, source: SessionRow, cut: _Cut) -> RuntimeState | None:
    stored = await work.tx.fetchrow(
        "SELECT runtime, version, payload FROM runtime_states WHERE session_id = $1", source["id"]
    )
    if stored is None:
        return None
    # A turn that failed before its first word has left nothing in the runtime's memory.
    turns = sum(
        message["role"] == "USER" and following is not None and following["role"] == "ASSISTANT"
        for message, following in zip_longest(cut.copied, cut.copied[1:])
    )
    state = RuntimeState(stored["runtime"], stored["version"], stored["payload"])
    return await parts().runtimes[source["runtime"]].fork(state, turns)


async def _insert(work: Work, source: SessionRow, new: UUID, title: str, message_id: UUID | None) -> SessionRow:
    await work.tx.execute(
        "INSERT INTO sessions (id, organization_id, creator_id, owner_id, title, status, visibility, runtime, model, "
        "system_prompt, permission_mode, options, labels, forked_from_id, forked_at_message_id, last_event_seq, "
        "message_count, tool_execution_count, request_count, created_at, updated_at) "
        "SELECT $2, organization_id, $3, $3, $4, 'CREATED', 'PRIVATE', runtime, model, system_prompt, permission_mode, "
        "options, labels, id, $5, 0, 0, 0, 0, $6, $6 FROM sessions WHERE id = $1",
        source["id"],
        new,
        work.actor.user_id,
        title,
        message_id,
        work.at,
    )
    await work.tx.execute(
        "INSERT INTO session_mcp_servers (id, session_id, mcp_server_id, position) "
        "SELECT gen_random_uuid(), $2, mcp_server_id, position FROM session_mcp_servers WHERE session_id = $1",
        source["id"],
        new,
    )
    return await read_in(work, new)


async def _copy(work: Work, fork: SessionRow, messages: Sequence[MessageRow]) -> None:
    rows = []
    for message in messages:
        copy = new_id()
        seq = work.emit(
            "CUSTOM",
            {
                "messageId": encode("msg", copy),
                "role": message["role"].lower(),
                "text": message["text"],
                "copyOf": encode("msg", message["id"]),
            },
            name="quarterdeck.message.copied",
            message_id=copy,
        )
        rows.append(
            (
                copy,
                fork["organization_id"],
                fork["id"],
                seq,
                message["role"],
                message["status"],
                message["reasoning"],
                message["author_id"],
                message["text"],
                message["created_at"],
            )
        )
    await work.tx.executemany(
        "INSERT INTO messages (id, organization_id, session_id, seq, role, status, reasoning, author_id, text, "
        "created_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        rows,
    )
    await work.tx.execute("UPDATE sessions SET message_count = $2 WHERE id = $1", fork["id"], len(rows))
