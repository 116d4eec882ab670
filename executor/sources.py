"""Where a field's values come from. The executor asks an `Outline`, which whoever declares the schema provides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphql import GraphQLField, GraphQLObjectType


@dataclass(frozen=True, slots=True)
class Read:
    """A column of a row or an attribute of an object, and how its value is shown (None is never shown)."""

    name: str
    show: Callable[[Any], Any] | None = None
    show_many: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    """The same as `show` for many values, none of which is None, where that is faster. Raises where it is unsure."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the parent alone: pure, and not async."""

    function: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """One call for all parents of a level: `(context, parents, args) -> results in parents' order`.

    An exception among the results is that parent's error. `convert` makes the function's arguments of the coerced
    ones, once for all parents.
    """

    function: Callable[[Any, Sequence[Any], dict[str, Any]], Awaitable[Sequence[Any]]]
    convert: Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Resolve:
    """The field's own resolver as graphql-core calls it: `(parent, info, **args)`, for each parent."""


Source = Read | Call | Batch | Resolve


@dataclass(frozen=True, slots=True)
class Outline:
    """What a schema says of its values, beyond what graphql-core knows."""

    source: Callable[[GraphQLField], Source] = lambda _: Resolve()
    class_of: Callable[[GraphQLObjectType], type | None] = lambda type_: None
    """The class whose instances, and no others, are of this type; None where `is_type_of` has to be asked."""
    rows: tuple[type, ...] = ()
    """Classes whose values are read as items (`row["name"]`) and not as attributes."""
    plain: Mapping[str, type] = field(default_factory=dict)
    """Scalars of ours whose values of this very class are results as they are: whoever writes JSON knows the class."""

    def read(self, source: Any, name: str) -> Any:
        """A value of a parent."""
        if isinstance(source, self.rows):
            row: Any = source
            return row[name]
        return getattr(source, name)
