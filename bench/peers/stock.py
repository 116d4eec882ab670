"""What the documentation of the same libraries leads to: Strawberry types made of Tortoise objects, and data loaders
per request. `python -m bench.peers.stock PORT DSN`.

It reads the product's tables through models of its own, and answers the read documents of bench/cases.py.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import strawberry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader
from tortoise import Tortoise, fields
from tortoise.functions import Count
from tortoise.models import Model

from bench.peers.common import Caller, Callers, open_pool, serve
from core.db import tortoise_config
from core.ids import decode, encode


class UserModel(Model):
    id = fields.UUIDField(primary_key=True)
    name = fields.CharField(200)

    class Meta:
        table = "users"


class SessionModel(Model):
    id = fields.UUIDField(primary_key=True)
    organization_id = fields.UUIDField()
    owner_id = fields.UUIDField()
    title = fields.CharField(200)
    status = fields.CharField(20)
    runtime = fields.CharField(40)
    permission_mode = fields.CharField(20)
    labels: Any = fields.JSONField()
    message_count = fields.IntField()
    tool_execution_count = fields.IntField()
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "sessions"


class MessageModel(Model):
    id = fields.UUIDField(primary_key=True)
    session_id = fields.UUIDField()
    role = fields.CharField(20)
    status = fields.CharField(20)
    seq = fields.BigIntField()
    text = fields.TextField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "messages"


@strawberry.type
class User:
    id: strawberry.ID
    name: str


@strawberry.type
class Message:
    id: strawberry.ID
    role: str
    status: str
    seq: int
    text: str
    created_at: datetime

    @classmethod
    def of(cls, model: MessageModel) -> Message:
        return cls(
            id=strawberry.ID(encode("msg", model.id)),
            role=model.role,
            status=model.status,
            seq=model.seq,
            text=model.text,
            created_at=model.created_at,
        )


@strawberry.type
class Messages:
    nodes: list[Message]
    session_id: strawberry.Private[UUID]

    @strawberry.field
    async def total_count(self, info: strawberry.Info) -> int:
        return await info.context["counts"].load(self.session_id)  # type: ignore[no-any-return]


@strawberry.type
class Session:
    id: strawberry.ID
    title: str
    status: str
    runtime: str
    permission_mode: str
    message_count: int
    tool_execution_count: int
    created_at: datetime
    updated_at: datetime
    model: strawberry.Private[SessionModel]

    @classmethod
    def of(cls, model: SessionModel) -> Session:
        return cls(
            id=strawberry.ID(encode("ses", model.id)),
            title=model.title,
            status=model.status,
            runtime=model.runtime,
            permission_mode=model.permission_mode,
            message_count=model.message_count,
            tool_execution_count=model.tool_execution_count,
            created_at=model.created_at,
            updated_at=model.updated_at,
            model=model,
        )

    @strawberry.field
    async def owner(self, info: strawberry.Info) -> User:
        user = await info.context["users"].load(self.model.owner_id)
        return User(id=strawberry.ID(encode("usr", user.id)), name=user.name)

    @strawberry.field
    async def messages(self, info: strawberry.Info, first: int = 25, newest_first: bool = False) -> Messages:
        found = await info.context["messages"].load(self.model.id)
        chosen = found[::-1][:first] if newest_first else found[:first]
        return Messages(nodes=[Message.of(message) for message in chosen], session_id=self.model.id)


@strawberry.type
class Sessions:
    nodes: list[Session]


@strawberry.input
class LabelInput:
    name: str
    value: str


@strawberry.input
class SessionFilter:
    created_before: datetime | None = None
    labels: list[LabelInput] | None = None


@strawberry.type
class Query:
    @strawberry.field
    async def session(self, info: strawberry.Info, id: strawberry.ID) -> Session | None:
        caller: Caller = info.context["caller"]
        found = await SessionModel.get_or_none(id=decode("ses", id), organization_id=caller.organization_id)
        return Session.of(found) if found else None

    @strawberry.field
    async def sessions(self, info: strawberry.Info, first: int = 25, filter: SessionFilter | None = None) -> Sessions:
        caller: Caller = info.context["caller"]
        query = SessionModel.filter(organization_id=caller.organization_id).exclude(status="ARCHIVED")
        if filter and filter.created_before:
            query = query.filter(created_at__lt=filter.created_before)
        if filter and filter.labels:
            query = query.filter(labels__contains={label.name: label.value for label in filter.labels})
        found = await query.order_by("-created_at", "-id").limit(first)
        return Sessions(nodes=[Session.of(session) for session in found])


async def _users(ids: list[UUID]) -> list[UserModel]:
    found = {user.id: user for user in await UserModel.filter(id__in=ids)}
    return [found[id_] for id_ in ids]


async def _messages(session_ids: list[UUID]) -> list[list[MessageModel]]:
    found: dict[UUID, list[MessageModel]] = defaultdict(list)
    for message in await MessageModel.filter(session_id__in=session_ids).order_by("seq"):
        found[message.session_id].append(message)
    return [found[id_] for id_ in session_ids]


async def _counts(session_ids: list[UUID]) -> list[int]:
    rows = (
        await MessageModel.filter(session_id__in=session_ids)
        .annotate(count=Count("id"))
        .group_by("session_id")
        .values("session_id", "count")
    )
    found = {row["session_id"]: row["count"] for row in rows}
    return [found.get(id_, 0) for id_ in session_ids]


class Stock:
    """The application, and the pool that its check of tokens uses."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None
        callers = Callers(self._opened)

        class Endpoint(GraphQL[Any, Any]):
            async def get_context(self, request: Any, response: Any) -> Any:
                caller = await callers.of(request.headers.get("authorization", ""))
                if caller is None:
                    raise PermissionError
                return {
                    "caller": caller,
                    "users": DataLoader(load_fn=_users),
                    "messages": DataLoader(load_fn=_messages),
                    "counts": DataLoader(load_fn=_counts),
                }

        self.app: Starlette = Starlette(
            routes=[Route("/readyz", self._ready), Route("/graphql", Endpoint(strawberry.Schema(Query)))],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        config = tortoise_config(self._dsn, pool_size=10)
        # The documentation knows nothing of codecs, nor of a pool of one's own.
        connection = config["connections"]["default"]
        connection["engine"] = "tortoise.backends.asyncpg"
        for ours in ("init", "server_settings"):
            del connection["credentials"][ours]
        config["apps"] = {"models": {"models": ["bench.peers.stock"], "default_connection": "default"}}
        await Tortoise.init(config=config, _enable_global_fallback=True)
        self._pool = await open_pool(self._dsn)
        yield
        await self._pool.close()
        await Tortoise.close_connections()

    async def _ready(self, request: Request) -> Response:
        return Response("{}", media_type="application/json")

    def _opened(self) -> asyncpg.Pool:
        assert self._pool is not None
        return self._pool


if __name__ == "__main__":
    # By its name, so that the models are those that Tortoise finds by the module's.
    from bench.peers import stock

    serve(stock.Stock(sys.argv[2]).app, int(sys.argv[1]))
