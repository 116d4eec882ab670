"""The limit: ASGI, asyncpg and orjson with the best SQL, by hand. `python -m bench.peers.bare PORT DSN`.

It answers byte for byte what the product answers to the documents of bench/cases.py, with the same check of the token
and the same scope, and sends a message by the same statements. What it lacks is everything else: a schema, documents,
permissions, limits, errors that name what to do, a log that streams can be resumed from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from bench.peers.common import Caller, Callers, open_pool, serve
from core.ids import decode, encode, new_id
from integrations.durable.base import Job
from integrations.durable.store import Store

Json = dict[str, Any]

_ONE = """
SELECT id, title, status, runtime, permission_mode, message_count, tool_execution_count, created_at, updated_at
FROM sessions WHERE id = $1 AND organization_id = $2
"""
_NESTED_SESSIONS = """
SELECT s.id, s.title, s.status, s.tool_execution_count, s.owner_id, u.name AS owner_name,
       (SELECT count(*) FROM messages m WHERE m.session_id = s.id) AS messages
FROM (SELECT * FROM sessions WHERE organization_id = $1 AND status <> 'ARCHIVED' AND created_at < $2
      ORDER BY created_at DESC, id DESC LIMIT $3) s
JOIN users u ON u.id = s.owner_id
ORDER BY s.created_at DESC, s.id DESC
"""
_NESTED_MESSAGES = """
SELECT m.session_id, m.id, m.role, m.text, m.created_at FROM unnest($1::uuid[]) AS s(id) CROSS JOIN LATERAL (
    SELECT session_id, id, role, text, created_at FROM messages WHERE session_id = s.id ORDER BY seq DESC LIMIT $2) m
"""
_FLAT = """
SELECT s.id AS session, m.id, m.role, m.status, m.seq, m.text, m.created_at
FROM (SELECT id, created_at FROM sessions WHERE organization_id = $1 AND status <> 'ARCHIVED' AND created_at < $2
      AND labels @> '{"size": "long"}' ORDER BY created_at DESC, id DESC LIMIT $3) s
CROSS JOIN LATERAL (
    SELECT id, role, status, seq, text, created_at FROM messages WHERE session_id = s.id ORDER BY seq LIMIT $4) m
ORDER BY s.created_at DESC, s.id DESC, m.seq
"""
_EVENT = """
INSERT INTO session_events (session_id, seq, organization_id, at, type, name, run_id, message_id, tool_execution_id,
    approval_id, actor_kind, actor_id, on_behalf_of, data)
VALUES ($1, $2, $3, $4, 'CUSTOM', $5, $6, $7, NULL, NULL, 'HUMAN', $8, NULL, $9)
"""
_AUDIT = """
INSERT INTO audit_records (id, organization_id, at, action, outcome, actor_kind, actor_id, actor_name, on_behalf_of,
    credential_id, ip, user_agent, request_id, target_kind, target_id, target_name, session_id, before, after, details,
    error_code, error_message, digest, seal)
VALUES ($1, $2, $3, 'message.send', 'SUCCEEDED', 'HUMAN', $4, 'Admin', NULL, NULL, '127.0.0.1', NULL, NULL, 'Session',
    $5, $6, $5, NULL, $7, NULL, NULL, NULL, $8, $9)
"""
_NEXT = """
SELECT runs.id, runs.organization_id, runs.segment, runs.status FROM runs
JOIN sessions ON sessions.id = runs.session_id
WHERE runs.session_id = $1 AND runs.status IN ('QUEUED', 'RUNNING', 'WAITING')
  AND sessions.status NOT IN ('PAUSED', 'TERMINATED', 'ARCHIVED')
ORDER BY runs.number LIMIT 1
"""


class Bare:
    """The application."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None
        self._callers = Callers(self._opened)
        self._queue = Store(dsn)
        self._subscribers: dict[str, dict[Any, str]] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(receive, send)
        else:
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        self._pool = await open_pool(self._dsn)
        await self._queue.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._queue.close()
        await self._pool.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/readyz":
            answer, status = b"{}", 200
        else:
            caller = await self._callers.of(dict(scope["headers"]).get(b"authorization", b"").decode())
            if caller is None:
                answer, status = b"{}", 401
            else:
                given = orjson.loads(body)
                answer, status = orjson.dumps({"data": await _ANSWERS[scope["path"]](self, caller, given)}), 200
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", b"application/json; charset=utf-8"),
                    (b"content-length", str(len(answer)).encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    # -- reads

    async def one(self, caller: Caller, given: Json) -> Json:
        row = await self._opened().fetchrow(_ONE, decode("ses", given["id"]), caller.organization_id)
        return {
            "session": row
            and {
                "id": encode("ses", row[0]),
                "title": row[1],
                "status": row[2],
                "runtime": row[3],
                "permissionMode": row[4],
                "messageCount": row[5],
                "toolExecutionCount": row[6],
                "createdAt": row[7],
                "updatedAt": row[8],
            }
        }

    async def nested(self, caller: Caller, given: Json) -> Json:
        async with self._opened().acquire() as connection:
            before = datetime.fromisoformat(given["before"])
            sessions = await connection.fetch(_NESTED_SESSIONS, caller.organization_id, before, given["first"])
            messages: dict[UUID, list[Json]] = {row[0]: [] for row in sessions}
            for row in await connection.fetch(_NESTED_MESSAGES, list(messages), given["messages"]):
                messages[row[0]].append(
                    {"id": encode("msg", row[1]), "role": row[2], "text": row[3], "createdAt": row[4]}
                )
        nodes = [
            {
                "id": encode("ses", row[0]),
                "title": row[1],
                "status": row[2],
                "toolExecutionCount": row[3],
                "owner": {"id": encode("usr", row[4]), "name": row[5]},
                "messages": {"totalCount": row[6], "nodes": messages[row[0]]},
            }
            for row in sessions
        ]
        return {"sessions": {"nodes": nodes}}

    async def flat(self, caller: Caller, given: Json) -> Json:
        rows = await self._opened().fetch(
            _FLAT,
            caller.organization_id,
            datetime.fromisoformat(given["before"]),
            given["first"],
            given["messages"],
        )
        messages: dict[UUID, list[Json]] = {}
        for row in rows:
            messages.setdefault(row[0], []).append(
                {
                    "id": encode("msg", row[1]),
                    "role": row[2],
                    "status": row[3],
                    "seq": row[4],
                    "text": row[5],
                    "createdAt": row[6],
                }
            )
        return {"sessions": {"nodes": [{"messages": {"nodes": found}} for found in messages.values()]}}

    async def place(self, caller: Caller, given: Json) -> Json:
        sql = "SELECT last_event_seq + 1 FROM sessions WHERE id = $1 AND organization_id = $2"
        return {"next": await self._opened().fetchval(sql, decode("ses", given["id"]), caller.organization_id)}

    # -- the write, by the product's statements

    async def send(self, caller: Caller, given: Json) -> Json:
        session_id, text = decode("ses", given["input"]["sessionId"]), given["input"]["text"]
        message_id, run_id, at = new_id(), new_id(), datetime.now(UTC)
        organization_id = caller.organization_id
        ids = {"messageId": encode("msg", message_id), "runId": encode("run", run_id)}
        sent = {**ids, "role": "user", "text": text}
        async with self._opened().acquire() as connection, connection.transaction():
            session = await connection.fetchrow(
                "SELECT * FROM sessions WHERE id = $1 AND organization_id = $2 FOR UPDATE", session_id, organization_id
            )
            last = await connection.fetchval("SELECT max(number) FROM runs WHERE session_id = $1", session_id) or 0
            seq = session["last_event_seq"] + 1
            queued = {"runId": ids["runId"], "number": last + 1}
            await connection.execute(
                "INSERT INTO runs (id, organization_id, session_id, number, status, segment, started_by_id, queued_at, "
                "request_count) VALUES ($1, $2, $3, $4, 'QUEUED', 1, $5, $6, 0)",
                *(run_id, organization_id, session_id, last + 1, caller.user_id, at),
            )
            await connection.execute(
                "INSERT INTO messages (id, organization_id, session_id, run_id, seq, role, status, reasoning, "
                "author_id, text, created_at) VALUES ($1, $2, $3, $4, $5, 'USER', 'COMPLETE', false, $6, $7, $8)",
                *(message_id, organization_id, session_id, run_id, seq, caller.user_id, text, at),
            )
            await connection.execute("UPDATE sessions SET message_count = message_count + 1 WHERE id = $1", session_id)
            row = await connection.fetchrow("SELECT * FROM messages WHERE id = $1", message_id)
            await connection.execute(
                "UPDATE sessions SET last_event_seq = $2, updated_at = $3 WHERE id = $1", session_id, seq + 1, at
            )
            common = (session_id, organization_id, at, run_id, caller.user_id)
            await connection.executemany(
                _EVENT,
                [
                    _event(common, seq, "quarterdeck.message.sent", message_id, sent),
                    _event(common, seq + 1, "quarterdeck.run.queued", None, queued),
                ],
            )
            await connection.executemany(
                "INSERT INTO session_changes (organization_id, session_id, kind, at) VALUES ($1, $2, $3, $4)",
                [(organization_id, session_id, "UPDATED", at)],
            )
            after = orjson.dumps({**ids, "characters": len(text)}).decode()
            await connection.execute(
                _AUDIT,
                *(new_id(), organization_id, at, caller.user_id, session_id, session["title"], after),
                *(os.urandom(32), os.urandom(32)),
            )
        run = await self._opened().fetchrow(_NEXT, session_id)
        await self._queue.enqueue([Job(f"{run[0]}:{run[2]}", run[0], run[1], run[2])])
        await self._publish(session_id, seq, "quarterdeck.message.sent", at, sent)
        await self._publish(session_id, seq + 1, "quarterdeck.run.queued", at, queued)
        return {
            "sendMessage": {
                "message": {
                    "id": ids["messageId"],
                    "seq": row["seq"],
                    "role": row["role"],
                    "text": row["text"],
                    "createdAt": row["created_at"],
                }
            }
        }

    # -- the stream: every event is encoded once, and sent to one socket after the other

    async def _publish(self, session_id: UUID, seq: int, name: str, at: datetime, data: Json) -> None:
        subscribers = self._subscribers.get(encode("ses", session_id))
        if not subscribers:
            return
        event = {"seq": seq, "type": "CUSTOM", "name": name, "at": at, "data": data}
        text = orjson.dumps({"id": "1", "type": "next", "payload": {"data": {"sessionEvents": event}}}).decode()
        for send in list(subscribers):
            await send({"type": "websocket.send", "text": text})

    async def _websocket(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "graphql-transport-ws"})
        session = None
        try:
            while (event := await receive())["type"] == "websocket.receive":
                message = orjson.loads(event["text"])
                payload = message.get("payload", {})
                if message["type"] == "connection_init":
                    if await self._callers.of(payload["authorization"]) is None:
                        await send({"type": "websocket.close", "code": 4403})
                        return
                    await send({"type": "websocket.send", "text": '{"type":"connection_ack"}'})
                elif message["type"] == "subscribe":
                    session = payload["variables"]["id"]
                    self._subscribers.setdefault(session, {})[send] = message["id"]
        finally:
            if session is not None:
                self._subscribers[session].pop(send, None)

    def _opened(self) -> asyncpg.Pool:
        assert self._pool is not None
        return self._pool


_ANSWERS = {"/one": Bare.one, "/nested": Bare.nested, "/flat": Bare.flat, "/place": Bare.place, "/send": Bare.send}


def _event(common: tuple[Any, ...], seq: int, name: str, message_id: UUID | None, data: Json) -> tuple[Any, ...]:
    session_id, organization_id, at, run_id, user_id = common
    return session_id, seq, organization_id, at, name, run_id, message_id, user_id, orjson.dumps(data).decode()


if __name__ == "__main__":
    serve(Bare(sys.argv[2]), int(sys.argv[1]))
