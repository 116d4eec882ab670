"""Nulls and errors where there should be none, the same for both executors: decided by the field and its parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from graphql import GraphQLField, GraphQLSchema, is_object_type

from core.errors import NotFound
from executor import Batch, Call, Outline, Read, Source
from models.base import Row


@dataclass(frozen=True)
class Faults:
    """Makes about `per_mille` of each kind of fault; each seed makes others."""

    seed: int
    per_mille: int = 15

    def spoil(self, name: str, parent: Any, value: Any) -> Any:
        """The value of a parent's field, or a fault in its place."""
        if parent is None:
            return value  # root fields are not null: there would be nothing left to compare
        chance = crc32(f"{self.seed}:{name}:{_key(parent)}".encode()) % 1000 // self.per_mille
        if chance == 0:
            return None
        if chance == 1:
            raise RuntimeError(f"{name} is broken")
        if chance == 2:
            return NotFound(f"{name} is not there", field=name)
        if chance == 3 and isinstance(value, list):
            return [None if number % 2 else item for number, item in enumerate(value)]
        if chance == 4:
            return _Strange()
        return value

    def into_resolvers(self, schema: GraphQLSchema) -> None:
        """For graphql-core, and for fields that an outline leaves to their resolvers."""
        for name, field in _fields(schema):
            field.resolve = self._resolver(name, field.resolve)

    def into_outline(self, schema: GraphQLSchema, outline: Outline) -> Outline:
        """For the executor."""
        names = {id(field): name for name, field in _fields(schema)}
        return Outline(
            lambda field: self._source(names.get(id(field)), outline.source(field), outline),
            outline.class_of,
            outline.rows,
            outline.plain,
        )

    def _resolver(self, name: str, resolve: Any) -> Any:
        def resolver(parent: Any, info: Any, **args: Any) -> Any:
            value = resolve(parent, info, **args)
            if not hasattr(value, "__await__"):
                return self.spoil(name, parent, value)

            async def later() -> Any:
                return self.spoil(name, parent, await value)

            return later()

        return resolver

    def _source(self, name: str | None, source: Source, outline: Outline) -> Source:
        if name is None:
            return source
        if isinstance(source, Call):
            return Call(lambda parent: self.spoil(name, parent, source.function(parent)))
        if isinstance(source, Read):

            def read(parent: Any) -> Any:
                value = outline.read(parent, source.name)
                return self.spoil(name, parent, value if value is None or not source.show else source.show(value))

            return Call(read)
        if isinstance(source, Batch):

            async def batch(context: Any, parents: Sequence[Any], args: dict[str, Any]) -> Sequence[Any]:
                found = await source.function(context, parents, args)
                return [self._caught(name, parent, value) for parent, value in zip(parents, found, strict=True)]

            return Batch(batch, source.convert)
        return source

    def _caught(self, name: str, parent: Any, value: Any) -> Any:
        try:
            return self.spoil(name, parent, value)
        except Exception as error:
            return error


class _Strange:
    """A value of no type of the schema."""

    def __repr__(self) -> str:
        return "<strange>"

    __str__ = __repr__


def _fields(schema: GraphQLSchema) -> list[tuple[str, GraphQLField]]:
    return [
        (f"{type_}.{name}", field)
        for type_ in schema.type_map.values()
        if is_object_type(type_) and not type_.name.startswith("__")
        for name, field in type_.fields.items()
    ]


def _key(parent: Any) -> str:
    """What stays the same of a parent from one execution to the next."""
    if isinstance(parent, Row):
        return str(parent.get("id"))
    rows = getattr(parent, "rows", None)
    if rows is not None:
        return ",".join(_key(row) for row in rows)
    return repr(parent) if parent is None or isinstance(parent, str) else type(parent).__name__
