"""What a field finds in `info.context`: the actor, and the batches of this operation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

import strawberry
from aiodataloader import DataLoader

from core.futures import retrieved
from core.permissions import Actor, Origin, signed_in

BatchFunction = Callable[[Actor, Sequence[Any], dict[str, Any]], Awaitable[Sequence[Any]]]
"""`(actor, parents, args) -> results in parents' order`: how a nested field reads, for all its parents at once."""


class Context:
    """One operation's context, or one event's of a subscription."""

    def __init__(self, actor: Actor | None, origin: Origin) -> None:
        self.caller = actor
        """Who asks; None where nobody is signed in."""
        self.origin = origin
        self._loaders: dict[Hashable, _Batch] = {}

    @property
    def actor(self) -> Actor:
        """Who asks; raises Unauthenticated where nobody is signed in."""
        return signed_in(self.caller)

    def batch(self, function: BatchFunction, parent: Any, args: dict[str, Any]) -> Awaitable[Any]:
        """The result for one parent; asked together with its siblings'."""
        key = (function, _frozen(args))
        loader = self._loaders.get(key)
        if loader is None:
            loader = self._loaders[key] = _Batch(self.actor, function, args)
        # Siblings of a field that failed are cancelled; the batch is not theirs alone.
        result = loader.load(parent)
        result.add_done_callback(retrieved)
        return asyncio.shield(result)

    def forget(self) -> None:
        """Read afresh from here on: each event of a subscription, each mutation of a document."""
        self._loaders.clear()


Info = strawberry.Info[Context, None]


class _Batch(DataLoader[Any, Any]):
    def __init__(self, actor: Actor, function: BatchFunction, args: dict[str, Any]) -> None:
        super().__init__(get_cache_key=id)
        self._actor, self._function, self._args = actor, function, args
        # The cache goes by identity, which holds only while the parents live.
        self._parents: list[Any] = []

    def load(self, key: Any) -> Any:
        self._parents.append(key)
        return super().load(key)

    async def batch_load_fn(self, keys: list[Any]) -> list[Any]:
        return list(await self._function(self._actor, keys, self._args))


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple((name, _frozen(item)) for name, item in value.items())
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value  # type: ignore[no-any-return]
