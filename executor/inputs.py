"""Variables and arguments, coerced by what was found out once.

The common cases are prepared; every other one, and every error, is graphql-core's own, so that values and messages
are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any

from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLError,
    GraphQLField,
    GraphQLSchema,
    Undefined,
    VariableDefinitionNode,
    VariableNode,
    is_input_object_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
    specified_scalar_types,
)
from graphql.execution.get_variable_signature import get_variable_signature
from graphql.execution.values import (
    VariableValues,
    VariableValueSource,
    get_argument_values,
    get_variable_values,
    input_is_nested_too_deeply,
)
from graphql.utilities.coerce_input_value import coerce_default_value, coerce_input_value

from executor.leaves import PLAIN

MAX_ERRORS = 50
"""Problems of variables that are told at most: graphql-core's own default."""

Arguments = Callable[[VariableValues], dict[str, Any]]
"""The arguments of a field, in a dict of its own; raises GraphQLError."""

_NONE = VariableValues({}, {})
_IMMUTABLE = (str, int, float, bool, Decimal, date, Enum, type(None))


class Variables:
    """The variables of one operation."""

    def __init__(self, schema: GraphQLSchema, definitions: Sequence[VariableDefinitionNode]) -> None:
        self._schema, self._definitions = schema, definitions
        self._known = []
        self._whole = True
        for node in definitions:
            signature = get_variable_signature(schema, node)
            if isinstance(signature, GraphQLError):
                self._whole = False
                continue
            type_ = signature.type
            named = type_.of_type if is_non_null_type(type_) else type_
            nests = is_list_type(named) or is_input_object_type(named)
            name = getattr(named, "name", "")
            plain = PLAIN.get(name) if specified_scalar_types.get(name) is named else None
            self._known.append((signature, nests, node.default_value is not None, is_non_null_type(type_), plain))

    def coerce(self, given: dict[str, Any]) -> VariableValues | list[GraphQLError]:
        """The values for execution, or what is wrong with them."""
        if not self._definitions:
            return _NONE
        found = self._coerce(given) if self._whole else None
        if found is not None:
            return found
        return get_variable_values(self._schema, self._definitions, given, max_errors=MAX_ERRORS)

    def _coerce(self, given: dict[str, Any]) -> VariableValues | None:
        sources: dict[str, VariableValueSource] = {}
        coerced: dict[str, Any] = {}
        for signature, nests, has_default, required, plain in self._known:
            name = signature.name
            value = given.get(name, Undefined)
            if plain is not None and value.__class__ is plain:
                sources[name] = VariableValueSource(signature, value)
                coerced[name] = value
                continue
            if value is Undefined:
                sources[name] = VariableValueSource(signature)
                if has_default:
                    try:
                        value = coerce_default_value(signature)
                    except TypeError:
                        return None
                    if not isinstance(value, _IMMUTABLE):
                        return None  # a default that a resolver could change is made anew
                    coerced[name] = value
                elif required:
                    return None
                continue
            sources[name] = VariableValueSource(signature, value)
            try:
                if nests and input_is_nested_too_deeply(value, signature.type):
                    return None
                value = coerce_input_value(value, signature.type)
            except (GraphQLError, RecursionError):
                return None
            if value is Undefined:
                return None
            coerced[name] = value
        return VariableValues(sources, coerced)


def compile_arguments(field: GraphQLField, node: FieldNode) -> Arguments:
    """The coercer of a field's arguments."""

    def ask(variables: VariableValues) -> dict[str, Any]:
        return get_argument_values(field, node, variables)

    if not field.args:
        return ask if node.arguments else _nothing
    given = {argument.name.value: argument.value for argument in node.arguments or ()}
    bare = {name: value.name.value for name, value in given.items() if isinstance(value, VariableNode)}
    constant = node if not bare else _without(node, bare)
    if any(name not in bare and _has_variables(value) for name, value in given.items()):
        return ask
    # Without the required ones the others can be coerced on their own.
    constant_field = GraphQLField(
        field.type, {n: a for n, a in field.args.items() if not (n in bare and is_required_argument(a))}
    )
    try:
        values = get_argument_values(constant_field, constant, _NONE)
    except GraphQLError:
        return ask
    if not all(isinstance(value, _IMMUTABLE) for value in values.values()):
        return ask
    if not bare:
        return lambda variables: values.copy()
    moving = [(_out_name(field.args[name], name), variable, field.args[name]) for name, variable in bare.items()]

    def arguments(variables: VariableValues) -> dict[str, Any]:
        coerced = variables.coerced
        found = values.copy()
        for name, variable, argument in moving:
            if variable in coerced:
                value = coerced[variable]
                if value is None and is_non_null_type(argument.type):
                    return ask(variables)
                found[name] = value
            elif is_required_argument(argument):
                return ask(variables)
        return found

    return arguments


def _nothing(variables: VariableValues) -> dict[str, Any]:
    return {}


def _out_name(argument: GraphQLArgument, name: str) -> str:
    return argument.out_name or name


def _without(node: FieldNode, names: dict[str, str]) -> FieldNode:
    kept = tuple(argument for argument in node.arguments or () if argument.name.value not in names)
    return FieldNode(name=node.name, alias=node.alias, arguments=kept, directives=(), loc=node.loc)


def _has_variables(value: Any) -> bool:
    if isinstance(value, VariableNode):
        return True
    children = getattr(value, "values", None) or [field.value for field in getattr(value, "fields", None) or ()]
    return any(_has_variables(child) for child in children)
