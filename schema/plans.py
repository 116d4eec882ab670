"""Tells the executor how strawberry's fields are read: columns, batch functions, and functions of the parent alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema
from strawberry.types.field import StrawberryField

from executor import Batch, Call, Outline, Read, Resolve, Source
from models.base import Row
from schema.arguments import Converters
from schema.context import Context
from schema.fields import Asked, Column, Nested, Root, admit, row_of
from schema.scalars import PLAIN


def outline_of(schema: GraphQLSchema) -> Outline:
    """What the executor is told of a schema that strawberry made."""
    converters = Converters(schema._strawberry_schema)  # type: ignore[attr-defined]
    return Outline(lambda field: _source(field, converters), _class_of, rows=(Row,), plain=PLAIN)


def _class_of(type_: GraphQLObjectType) -> type | None:
    definition = type_.extensions.get("strawberry-definition")
    return row_of(definition.origin) if definition is not None else None


def declared(field: GraphQLField) -> StrawberryField | None:
    """The field as strawberry has it; None for what it did not declare, or does not run plainly."""
    found = field.extensions.get("strawberry-definition")
    return found if isinstance(found, StrawberryField) and not found.extensions else None


def _source(field: GraphQLField, converters: Converters) -> Source:
    found = declared(field)
    if found is None:
        return Resolve()
    column, nested, root = (found.metadata.get(name) for name in ("column", "nested", "root"))
    if isinstance(column, Column):
        return Read(column.name or found.python_name, column.show, column.show_many)
    if isinstance(nested, Nested):
        return _batch(found, nested, converters)
    if isinstance(root, Root):
        return Call(_itself) if found.is_subscription else _root(found, root, converters)
    resolver = found.base_resolver
    if resolver is None:
        return Read(found.python_name)
    if found.is_async or found.arguments or resolver.info_parameter:
        return Resolve()
    if resolver.self_parameter or resolver.root_parameter or resolver.parent_parameter:
        return Call(resolver.wrapped_func)
    return Resolve()


def _batch(field: StrawberryField, nested: Nested, converters: Converters) -> Batch:
    function, defaults = nested.function, nested.defaults
    converted = converters.of(field)

    async def call(context: Context, parents: Sequence[Any], args: dict[str, Any]) -> Sequence[Any]:
        return await function(context.actor, parents, args)

    def convert(args: dict[str, Any]) -> dict[str, Any]:
        return defaults | converted(args) if args else defaults.copy()

    return Batch(call, convert)


def _root(field: StrawberryField, root: Root, converters: Converters) -> Batch:
    """A root field has one parent, so it is called once."""
    function, permission = root.function, field.metadata["access"].permission
    name = converters.name_of(field)

    async def call(context: Context, parents: Sequence[Any], args: dict[str, Any]) -> Sequence[Any]:
        if root.forgets:
            context.forget()
        asked = Asked(context, name)
        await admit(asked, permission)
        return [await function(asked, **args)]

    return Batch(call, converters.of(field))


def _itself(event: Any) -> Any:
    return event
