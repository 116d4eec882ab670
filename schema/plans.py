"""Tells the executor how strawberry's fields are read: columns, batch functions, and functions of the parent alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import strawberry
from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField

from executor import Batch, Call, Outline, Read, Resolve, Source
from models.base import Row
from schema.context import Context
from schema.fields import Column, Nested, row_of


def outline_of(schema: GraphQLSchema) -> Outline:
    """What the executor is told of a schema that strawberry made."""
    described: strawberry.Schema = schema._strawberry_schema  # type: ignore[attr-defined]
    return Outline(source=lambda field: _source(field, described), class_of=_class_of, rows=(Row,))


def _class_of(type_: GraphQLObjectType) -> type | None:
    definition = type_.extensions.get("strawberry-definition")
    return row_of(definition.origin) if definition is not None else None


def _source(field: GraphQLField, schema: strawberry.Schema) -> Source:
    declared = field.extensions.get("strawberry-definition")
    if not isinstance(declared, StrawberryField) or declared.extensions:
        return Resolve()
    column, nested = declared.metadata.get("column"), declared.metadata.get("nested")
    if isinstance(column, Column):
        return Read(column.name or declared.python_name, column.show)
    if isinstance(nested, Nested):
        return _batch(declared, nested, schema)
    resolver = declared.base_resolver
    if resolver is None:
        return Read(declared.python_name)
    if declared.is_async or declared.arguments or resolver.info_parameter:
        return Resolve()
    if resolver.self_parameter or resolver.root_parameter or resolver.parent_parameter:
        return Call(resolver.wrapped_func)
    return Resolve()


def _batch(field: StrawberryField, nested: Nested, schema: strawberry.Schema) -> Batch:
    function, defaults = nested.function, nested.defaults

    async def call(context: Context, parents: Sequence[Any], args: dict[str, Any]) -> Sequence[Any]:
        return await function(context.actor, parents, args)

    def convert(args: dict[str, Any]) -> dict[str, Any]:
        if not args:
            return defaults.copy()
        return defaults | convert_arguments(
            args, field.arguments, scalar_registry=schema.schema_converter.scalar_registry, config=schema.config
        )

    return Batch(call, convert)
