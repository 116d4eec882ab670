"""Completing scalars and enums, and generating the functions that make an object's leaves of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from graphql import (
    GraphQLEnumType,
    GraphQLFloat,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLOutputType,
    Undefined,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    specified_scalar_types,
)
from graphql.pyutils import inspect

from executor.sources import Call, Outline, Read

if TYPE_CHECKING:
    from executor.fields import Field

Complete = Callable[[Any], Any]
MakeRows = Callable[[Sequence[Any]], list[dict[str, Any]]]


class Unfit(Exception):
    """The value cannot be completed without an error or a null that spreads: complete it carefully."""


def complete_leaf(type_: GraphQLLeafType, value: Any) -> Any:
    """A scalar's or enum's output; raises as graphql-core does."""
    coerced = type_.coerce_output_value(value)
    if coerced is Undefined or coerced is None:
        raise TypeError(
            f"Expected `{inspect(type_)}.coerce_output_value({inspect(value)})` to return non-nullable value, returned:"
            f" {inspect(coerced)}"
        )
    return coerced


PLAIN = {"String": str, "ID": str, "Boolean": bool}
"""The same of the specification's scalars as `Outline.plain` of ours."""


def plain_class(type_: GraphQLLeafType, outline: Outline) -> type | None:
    """The class whose values need no coercion; None where there is none."""
    if specified_scalar_types.get(type_.name) is type_:
        return PLAIN.get(type_.name)
    return outline.plain.get(type_.name)


def compile_completer(type_: GraphQLOutputType, outline: Outline) -> Complete:
    """A function that completes values of a leaf type, or of lists of them. Raises, often Unfit, where it is unsure."""
    if is_non_null_type(type_):
        inner = compile_completer(type_.of_type, outline)

        def required(value: Any) -> Any:
            if value is None or (found := inner(value)) is None:
                raise Unfit
            return found

        return required
    if is_list_type(type_):
        item = compile_completer(type_.of_type, outline)

        def items(value: Any) -> Any:
            if value is None:
                return None
            if not isinstance(value, list | tuple):
                raise Unfit
            return [item(element) for element in value]

        return items
    assert is_leaf_type(type_)
    names = enum_names(type_) if isinstance(type_, GraphQLEnumType) else None
    plain = plain_class(type_, outline)
    is_int, is_float = type_ is GraphQLInt, type_ is GraphQLFloat

    def leaf(value: Any) -> Any:
        if value is None or value.__class__ is plain:
            return value
        if is_float and value.__class__ is float and -inf < value < inf:
            return value
        if is_int and value.__class__ is int and -2147483648 <= value <= 2147483647:
            return value
        if names is not None and isinstance(value, str):
            return names[value]
        if value is Undefined or isinstance(value, Exception):
            raise Unfit
        return complete_leaf(type_, value)

    return leaf


def enum_names(type_: GraphQLEnumType) -> dict[Any, str] | None:
    """The names by values, for an enum whose values are strings (StrEnum members are equal to theirs)."""
    values = [definition.value for definition in type_.values.values()]
    if not all(isinstance(value, str) for value in values):
        return None
    return {value: type_.coerce_output_value(value) for value in values}


def compile_rows(fields: Sequence[Field], outline: Outline, *, items: bool) -> MakeRows:
    """A function that makes the objects of rows: leaves filled in, a place kept for everything else.

    With `items` the rows are read as `row["name"]`, else as `row.name`. The function raises where any value needs care.
    """
    writer = _Writer(outline, items=items)
    members = ", ".join(f"{field.key!r}: {writer.expression(field)}" for field in fields)
    together = writer.together
    lines = [f"    {name}s = {value}" for name, value in together.items()]
    each = "r in rows"
    if together:
        each = f"r, {', '.join(together)} in zip(rows, {', '.join(f'{name}s' for name in together)}, strict=True)"
    # A loop and not a comprehension: there the names bound by := would be cells, which are slower.
    head, body = ["def make(rows):", *lines, "    made = []"], f"        made.append({{{members}}})"
    source = "\n".join([*head, f"    for {each}:", body, "    return made\n"])
    exec(source, writer.names)  # noqa: S102  (made of nothing but names that GraphQL's grammar allows)
    return writer.names["make"]  # type: ignore[no-any-return]


class _Writer:
    """Writes expressions, and collects the objects that they name."""

    def __init__(self, outline: Outline, *, items: bool) -> None:
        self._outline, self._items = outline, items
        self.names: dict[str, Any] = {"U": Undefined}
        self.together: dict[str, str] = {}
        """Names of values that are made for all rows at once, and how."""

    def expression(self, field: Field) -> str:
        """The value of a field of the row `r`."""
        if field.constant is not None:
            return repr(field.constant)
        if not field.inline:
            return "None"
        source = field.source
        if isinstance(source, Call):
            return self._complete(field, f"{self._name(source.function)}(r)")
        assert isinstance(source, Read)
        value = f"r[{source.name!r}]" if self._items else f"r.{source.name}"
        if source.show is None:
            return self._complete(field, value)
        if source.show_many is not None and is_non_null_type(field.type):
            name = f"t{len(self.together)}"
            self.together[name] = f"{self._name(source.show_many)}([{value} for r in rows])"
            return self._complete(field, name)
        shown = self._complete(field, f"{self._name(source.show)}(v)")
        return f"{shown} if (v := {value}) is not None else {self._absent(field)}"

    def _absent(self, field: Field) -> str:
        return f"{self._name(_raise)}()" if is_non_null_type(field.type) else "None"

    def _complete(self, field: Field, value: str) -> str:
        type_ = field.type.of_type if is_non_null_type(field.type) else field.type
        careful = self._name(field.complete)
        if isinstance(type_, GraphQLEnumType) and (names := enum_names(type_)) is not None:
            known = names if type_ is not field.type else names | {None: None}
            return f"{self._name(known)}[{value}]"
        if not is_leaf_type(type_):
            return f"{careful}({value})"
        if type_ is GraphQLInt:
            within = "-2147483648 <= w <= 2147483647"
            return f"(w if (w := {value}).__class__ is int and {within} else {careful}(w))"
        if type_ is GraphQLFloat:
            within = f"-{self._name(inf)} < w < {self._name(inf)}"
            return f"(w if (w := {value}).__class__ is {self._name(float)} and {within} else {careful}(w))"
        if (plain := plain_class(type_, self._outline)) is not None:
            return f"(w if (w := {value}).__class__ is {self._name(plain)} else {careful}(w))"
        if specified_scalar_types.get(type_.name) is type_:
            return f"{careful}({value})"
        if not self._items or not isinstance(field.source, Read) or field.source.show is not None:
            # A function or an attribute may give an exception, which many scalars would take for a value.
            return f"{careful}({value})"
        coerce = self._name(type_.coerce_output_value)
        return f"(x if (w := {value}) is not None and (x := {coerce}(w)) is not None and x is not U else {careful}(w))"

    def _name(self, thing: Any) -> str:
        for name, known in self.names.items():
            if known is thing:
                return name
        name = f"n{len(self.names)}"
        self.names[name] = thing
        return name


def _raise() -> None:
    raise Unfit
