"""Tells the executor how strawberry's fields are read: columns, batch functions, and functions of the parent alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import strawberry
from graphql import GraphQLField, GraphQLObjectType, GraphQLSchema
from strawberry.types.arguments import convert_arguments
from strawberry.types.base import StrawberryOptional
from strawberry.types.field import StrawberryField

from executor import Batch, Call, Outline, Read, Resolve, Source
from models.base import Row
from schema.context import Context
from schema.fields import Asked, Column, Nested, Root, admit, row_of


def outline_of(schema: GraphQLSchema) -> Outline:
    """What the executor is told of a schema that strawberry made."""
    described: strawberry.Schema = schema._strawberry_schema  # type: ignore[attr-defined]
    return Outline(source=lambda field: _source(field, described), class_of=_class_of, rows=(Row,))


def _class_of(type_: GraphQLObjectType) -> type | None:
    definition = type_.extensions.get("strawberry-definition")
    return row_of(definition.origin) if definition is not None else None


def declared(field: GraphQLField) -> StrawberryField | None:
    """The field as strawberry has it; None for what it did not declare, or does not run plainly."""
    found = field.extensions.get("strawberry-definition")
    return found if isinstance(found, StrawberryField) and not found.extensions else None


def converter(field: StrawberryField, schema: strawberry.Schema) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Makes a function's arguments of the coerced ones: names and classes as Python has them."""
    names = {
        argument.graphql_name or schema.config.name_converter.get_graphql_name(argument): argument.python_name
        for argument in field.arguments
    }
    plain = all(_is_plain(argument.type) for argument in field.arguments)

    def convert(args: dict[str, Any]) -> dict[str, Any]:
        if plain:
            return {names[name]: value for name, value in args.items()}
        return convert_arguments(
            args, field.arguments, scalar_registry=schema.schema_converter.scalar_registry, config=schema.config
        )

    return convert


def _is_plain(type_: Any) -> bool:
    """Whether strawberry hands such an argument on as it was coerced."""
    if isinstance(type_, StrawberryOptional):
        type_ = type_.of_type
    return type_ in (str, int, bool, strawberry.ID)


def _source(field: GraphQLField, schema: strawberry.Schema) -> Source:
    found = declared(field)
    if found is None:
        return Resolve()
    column, nested, root = (found.metadata.get(name) for name in ("column", "nested", "root"))
    if isinstance(column, Column):
        return Read(column.name or found.python_name, column.show)
    if isinstance(nested, Nested):
        return _batch(found, nested, schema)
    if isinstance(root, Root):
        return Call(_itself) if found.is_subscription else _root(found, root, schema)
    resolver = found.base_resolver
    if resolver is None:
        return Read(found.python_name)
    if found.is_async or found.arguments or resolver.info_parameter:
        return Resolve()
    if resolver.self_parameter or resolver.root_parameter or resolver.parent_parameter:
        return Call(resolver.wrapped_func)
    return Resolve()


def _batch(field: StrawberryField, nested: Nested, schema: strawberry.Schema) -> Batch:
    function, defaults = nested.function, nested.defaults
    converted = converter(field, schema)

    async def call(context: Context, parents: Sequence[Any], args: dict[str, Any]) -> Sequence[Any]:
        return await function(context.actor, parents, args)

    def convert(args: dict[str, Any]) -> dict[str, Any]:
        return defaults | converted(args) if args else defaults.copy()

    return Batch(call, convert)


def _root(field: StrawberryField, root: Root, schema: strawberry.Schema) -> Batch:
    """A root field has one parent, so it is called once."""
    function, permission = root.function, field.metadata["access"].permission
    name = schema.config.name_converter.get_graphql_name(field)

    async def call(context: Context, parents: Sequence[Any], args: dict[str, Any]) -> Sequence[Any]:
        if root.forgets:
            context.forget()
        asked = Asked(context, name)
        await admit(asked, permission)
        return [await function(asked, **args)]

    return Batch(call, converter(field, schema))


def _itself(event: Any) -> Any:
    return event
