"""A new session that goes on from a message of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from uuid import UUID

from core.errors import IllegalTransition, LimitExceeded, NotFound
from core.ids import encode, new_id
from core.permissions import Actor
from integrations.agents.base import RuntimeState
from models.base import Query, Row
from models.sessions import Session, SessionRow
from services import audit, idempotency
from services.annotations.copying import copy_annotations
from services.parts import parts
from services.sessions.lifecycle import make_directory, read_in
from services.sessions.messages import add_message
from services.sessions.options import check_title
from services.sharing.views import note_view
from services.work import Work, write

MOST_MESSAGES = 20_000
"""That a fork copies: all in one transaction."""


class _Row(Row):
    """A message without its text."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Cut:
    copied: Sequence[_Row]
    """Their ids and roles, as the conversation went."""
    asked_again: str | None
    """The text of a user's message that is the point of the fork: it is sent anew, and answered anew."""


async def fork_session(
    actor: Actor, session_id: UUID, *, message_id: UUID | None, title: str | None, key: str | None = None
) -> SessionRow:
    """A session of the actor's own with the conversation up to a message, the same options and servers, and a
    fresh working directory.

    At an agent's message the fork has the whole turn that the message belongs to. At a user's message the fork
    has what came before, and answers that message anew. Without a message it has all turns that have ended.

    Annotations on the messages that are copied go along.

    Raises NotFound, IllegalTransition where the message's run is open, LimitExceeded over MOST_MESSAGES messages or
    too many comments.
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
        _record_at_source(work, source, row)
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
            await add_message(work, row, cut.asked_again, message_id=new_id())
        make_directory(row["organization_id"], row["id"])
        return await read_in(work, row["id"])


def _record_at_source(work: Work, source: SessionRow, fork: SessionRow) -> None:
    """Who forks a session takes what is in it along: its own audit log and its report of views say so."""
    entry = audit.Entry.of(work.actor, "session.forked")
    entry.target_kind, entry.target_id, entry.target_name = "Session", source["id"], source["title"]
    entry.session_id = source["id"]
    entry.details = {"fork": encode("ses", fork["id"])}
    work.also(entry)
    note_view(work.actor, [source["id"]], "fork")


async def _visible(work: Work, session_id: UUID) -> SessionRow:
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM sessions WHERE id = {query.arg(session_id)} "
        f"AND {query.scope(Session.visible_to(work.actor), by_row=True)}",
        *query.args,
        row=SessionRow,
    )
    if row is None:
        raise NotFound("There is no such session, or you may not see it.", field="sessionId")
    return row


# As the conversation went: a message that was sent while another was being answered comes after that answer.
# What a fork copied has no run, and comes before all of them.
_MESSAGES = """
SELECT {columns} FROM messages LEFT JOIN runs ON runs.id = messages.run_id
CROSS JOIN LATERAL (SELECT coalesce(runs.number, 0) AS turn,
                           coalesce(runs.status IN ('QUEUED', 'RUNNING', 'WAITING'), false) AS run_open) AS its
WHERE messages.session_id = {session}
"""


async def _cut(work: Work, source: SessionRow, message_id: UUID | None) -> _Cut:
    query = Query()
    sql = _MESSAGES.format(columns="messages.id, messages.role", session=query.arg(source["id"])) + "AND NOT run_open "
    asked_again = None
    if message_id is not None:
        point = await _point(work, source, message_id)
        turn = query.arg(point["turn"])
        if point["role"] == "USER":
            asked_again = await work.tx.fetchval("SELECT text FROM messages WHERE id = $1", message_id)
            sql += f"AND (turn, messages.seq) < ({turn}, {query.arg(point['seq'])}) "
        elif point["run_open"]:
            raise IllegalTransition(
                "The run of this message has not ended yet. Fork when it has, or interrupt it.", field="messageId"
            )
        elif point["run_id"] is None:
            sql += (
                f"AND turn = {turn} AND messages.seq < coalesce((SELECT min(seq) FROM messages AS next "
                f"WHERE next.session_id = $1 AND next.run_id IS NULL AND next.role = 'USER' "
                f"AND next.seq > {query.arg(point['seq'])}), {2**63 - 1}) "
            )
        else:
            sql += f"AND turn <= {turn} "
    copied = await work.tx.fetch(sql + f"ORDER BY turn, messages.seq LIMIT {MOST_MESSAGES + 1}", *query.args, row=_Row)
    if len(copied) > MOST_MESSAGES:
        raise LimitExceeded(
            f"This fork would copy more than {MOST_MESSAGES:,} messages. Fork at an earlier message, or start a new "
            "session and tell it what matters of this one.",
            field="messageId",
        )
    return _Cut(copied, asked_again)


async def _point(work: Work, source: SessionRow, message_id: UUID) -> _Row:
    columns = "messages.seq, messages.role, messages.run_id, turn, run_open"
    sql = _MESSAGES.format(columns=columns, session="$1") + "AND messages.id = $2"
    point = await work.tx.fetchrow(sql, source["id"], message_id, row=_Row)
    if point is None:
        raise NotFound("There is no such message in this session.", field="messageId")
    return point


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
        "system_prompt, permission_mode, options, labels, template_version_id, template_parameters, forked_from_id, "
        "forked_at_message_id, last_event_seq, message_count, tool_execution_count, request_count, created_at, "
        "updated_at) "
        "SELECT $2, organization_id, $3, $3, $4, 'CREATED', 'PRIVATE', runtime, model, system_prompt, permission_mode, "
        "options, labels, template_version_id, template_parameters, id, $5, 0, 0, 0, 0, $6, $6 "
        "FROM sessions WHERE id = $1",
        source["id"],
        new,
        work.actor.user_id,
        title,
        message_id,
        work.at,
    )
    await work.tx.execute(
        "INSERT INTO session_mcp_servers (id, session_id, mcp_server_id, position, allowed_tools) "
        "SELECT gen_random_uuid(), $2, mcp_server_id, position, allowed_tools FROM session_mcp_servers "
        "WHERE session_id = $1",
        source["id"],
        new,
    )
    # The directory of a fork is as fresh as that of any session of its template.
    await work.tx.execute(
        "INSERT INTO session_seeds (session_id, seed) SELECT $2, versions.spec -> 'seed' FROM sessions "
        "JOIN session_template_versions AS versions ON versions.id = sessions.template_version_id "
        "WHERE sessions.id = $1 AND versions.spec ? 'seed'",
        source["id"],
        new,
    )
    return await read_in(work, new)


_COPY = """
WITH copied AS (SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[]) WITH ORDINALITY
                AS copied (source, id, source_name, name, place)),
events AS (
    INSERT INTO session_events (session_id, seq, organization_id, at, type, name, message_id, actor_kind, actor_id,
                                on_behalf_of, data)
    SELECT $1, $6 + place - 1, organization_id, $7, 'CUSTOM', 'quarterdeck.message.copied', copied.id, $8, $9, $10,
           jsonb_build_object('messageId', copied.name, 'role', lower(role), 'text', text, 'copyOf', source_name)
    FROM copied JOIN messages ON messages.id = source
)
INSERT INTO messages (id, organization_id, session_id, seq, role, status, reasoning, author_id, text, created_at)
SELECT copied.id, organization_id, $1, $6 + place - 1, role, status, reasoning, author_id, text, created_at
FROM copied JOIN messages ON messages.id = source
"""


async def _copy(work: Work, fork: SessionRow, messages: Sequence[_Row]) -> None:
    """Copy the messages, each with its event, and what is annotated on them, inside the database: together they may
    be large."""
    if not messages:
        return
    sources = [message["id"] for message in messages]
    copies = [new_id() for _ in sources]
    await work.tx.execute(
        _COPY,
        fork["id"],
        sources,
        copies,
        [encode("msg", source) for source in sources],
        [encode("msg", copy) for copy in copies],
        work.reserve_events(len(copies)),
        work.at,
        work.actor.kind.value,
        work.actor.user_id,
        work.actor.on_behalf_of,
    )
    await work.tx.execute("UPDATE sessions SET message_count = $2 WHERE id = $1", fork["id"], len(copies))
    await copy_annotations(work, fork["id"], sources, copies)
