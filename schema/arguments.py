"""Making a function's arguments of coerced values: names and classes as Python has them.

Strawberry works this out anew for every value of every request. Here it is worked out once; what is unusual is left to
strawberry itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING
from typing import Any

import strawberry
from strawberry.scalars import is_scalar
from strawberry.types.arguments import convert_argument
from strawberry.types.base import (
    StrawberryList,
    StrawberryMaybe,
    StrawberryObjectDefinition,
    StrawberryOptional,
    has_object_definition,
)
from strawberry.types.enum import StrawberryEnumDefinition, has_enum_definition
from strawberry.types.field import StrawberryField
from strawberry.types.lazy_type import LazyType

Convert = Callable[[Any], Any]


class Converters:
    """Converters of one schema's fields and input types."""

    def __init__(self, schema: strawberry.Schema) -> None:
        self._config = schema.config
        self._scalars = schema.schema_converter.scalar_registry
        self._objects: dict[type, Convert] = {}

    def of(self, field: StrawberryField) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Makes a field's keyword arguments."""
        known = {
            self._config.name_converter.from_argument(argument): (argument.python_name, self._value(argument.type))
            for argument in field.arguments
        }

        def convert(args: dict[str, Any]) -> dict[str, Any]:
            found = {}
            for name, value in args.items():
                python_name, make = known[name]
                found[python_name] = value if make is None or value is None else make(value)
            return found

        return convert

    def name_of(self, field: StrawberryField) -> str:
        """What a field is called in the graph."""
        return self._config.name_converter.from_field(field)

    def _value(self, type_: Any) -> Convert | None:
        """Makes a value that is not null; None where it stays as it is."""
        if isinstance(type_, StrawberryOptional) and not isinstance(type_, StrawberryMaybe):
            return self._value(type_.of_type)
        if isinstance(type_, LazyType):
            return self._value(type_.resolve_type())
        if isinstance(type_, StrawberryList):
            item = self._value(type_.of_type)
            # A default is one list for all requests: it is copied.
            return list if item is None else lambda value: [None if one is None else item(one) for one in value]
        if isinstance(type_, StrawberryEnumDefinition) or has_enum_definition(type_) or is_scalar(type_, self._scalars):
            return None
        if has_object_definition(type_) and type_.__strawberry_definition__.from_input is None:
            return lambda value: self._object(type_)(value)
        return lambda value: convert_argument(value, type_, self._scalars, self._config)

    def _object(self, type_: Any) -> Convert:
        """Makes an input object. Found when it is first needed, since input types may nest themselves."""
        found = self._objects.get(type_)
        if found is None:
            found = self._objects[type_] = self._compile(type_, type_.__strawberry_definition__)
        return found

    def _compile(self, type_: Any, definition: StrawberryObjectDefinition) -> Convert:
        known = {
            self._config.name_converter.from_field(field): (
                field.python_name,
                self._value(field.resolve_type(type_definition=definition)),
            )
            for field in definition.fields
        }
        absent = {
            field.python_name: None
            for field in definition.fields
            if field.default_value is MISSING and field.default_factory is MISSING
        }

        def make(value: dict[str, Any]) -> Any:
            given: dict[str, Any] = absent.copy()
            for name, item in value.items():
                python_name, convert = known[name]
                given[python_name] = item if convert is None or item is None else convert(item)
            return type_(**given)

        return make
