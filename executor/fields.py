"""What a plan is made of: the fields of an object at one place of an operation, and what they lead to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLObjectType,
    default_field_resolver,
    default_type_resolver,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from executor.inputs import Arguments, compile_arguments
from executor.leaves import MakeRows, compile_completer, compile_rows
from executor.sources import Batch, Call, Outline, Read, Resolve

if TYPE_CHECKING:
    from graphql.execution.collect_fields import FieldDetails

    from executor.plans import Variant


WORTH_GENERATING = 64
"""Objects that a selection has made before a function is generated for it, which takes as long as some hundred."""


class Definition:
    """A field of the schema, looked at once for all plans."""

    def __init__(self, parent: GraphQLObjectType, field: GraphQLField, outline: Outline) -> None:
        self.parent, self.field, self.type = parent, field, field.type
        self.named = get_named_type(field.type)
        self.leaf = is_leaf_type(self.named)
        self.source = outline.source(field)
        self.resolve = field.resolve or default_field_resolver
        self.complete = compile_completer(field.type, outline) if self.leaf else None
        self.nullable = _nullable(field.type)
        """Whether null is allowed: of the field itself, of its list's items, of their items, …"""

    def value(self, outline: Outline) -> Callable[[Any], Any]:
        """A function that reads the field's value of a parent."""
        source = self.source
        if isinstance(source, Call):
            return source.function
        assert isinstance(source, Read)
        name, show, read = source.name, source.show, outline.read
        if show is None:
            return lambda parent: read(parent, name)

        def shown(parent: Any) -> Any:
            value = read(parent, name)
            return None if value is None else show(value)

        return shown


class Field:
    """One response key of an object: all nodes of the document that ask for it, merged."""

    def __init__(self, variant: Variant, key: str, details: list[FieldDetails], definition: Definition) -> None:
        self._variant, self._details = variant, details
        self.key, self.definition = key, definition
        self.nodes: list[FieldNode] = [detail.node for detail in details]
        self.name = self.nodes[0].name.value
        self.parent, self.type, self.named = definition.parent, definition.type, definition.named
        self.leaf, self.source, self.nullable = definition.leaf, definition.source, definition.nullable
        self.constant = self.parent.name if self.name == "__typename" else None
        self.inline = self.leaf and isinstance(self.source, Read | Call) and self.constant is None
        self.complete, self.resolve = definition.complete, definition.resolve
        self.depth = len(self.nullable) - 1
        self._fits: dict[type, Selection | None] = {}

    @cached_property
    def arguments(self) -> Arguments:
        """The field's arguments; calling it raises GraphQLError."""
        return compile_arguments(self.definition.field, self.nodes[0])

    @cached_property
    def value(self) -> Callable[[Any], Any]:
        """Reads the field's value of a parent."""
        return self.definition.value(self._variant.outline)

    def selection(self, type_: GraphQLObjectType) -> Selection:
        """What is asked of the objects of this type."""
        return self._variant.selection(self, type_, self._details)

    def fits(self, kind: type) -> Selection | None:
        """What is asked of instances of this class, where the class alone decides; else None."""
        if kind in self._fits:
            return self._fits[kind]
        found = None
        if kind is not type(None) and not issubclass(kind, Exception):
            type_ = self._type_of(kind)
            found = self.selection(type_) if type_ is not None else None
        self._fits[kind] = found
        return found

    def _type_of(self, kind: type) -> GraphQLObjectType | None:
        outline = self._variant.outline
        if is_abstract_type(self.named):
            if not issubclass(kind, outline.rows):
                return None
            possible = self._variant.schema.get_possible_types(self.named)
            named = [type_ for type_ in possible if (class_ := outline.class_of(type_)) and issubclass(kind, class_)]
            return named[0] if len(named) == 1 else None
        assert isinstance(self.named, GraphQLObjectType)
        if self.named.is_type_of is None:
            return self.named
        class_ = outline.class_of(self.named)
        return self.named if class_ is not None and issubclass(kind, class_) else None

    @property
    def type_resolver(self) -> Any:
        """What names the type of a value of an abstract type."""
        assert is_abstract_type(self.named)
        return self.named.resolve_type or default_type_resolver


class Selection:
    """The fields asked of the objects of one type at one place."""

    def __init__(self, type_: GraphQLObjectType, fields: Sequence[Field], outline: Outline) -> None:
        self.type, self.fields = type_, fields
        self.inline = [field for field in fields if field.inline]
        self.objects = [f for f in fields if not f.leaf and isinstance(f.source, Read | Call)]
        self.batches = [field for field in fields if isinstance(field.source, Batch)]
        self.resolved = [f for f in fields if isinstance(f.source, Resolve) and f.constant is None]
        self._outline, self._rows = outline, outline.rows
        self._generated: dict[bool, MakeRows] = {}
        self._made = 0

    def make(self, kinds: set[type], parents: Sequence[Any]) -> list[dict[str, Any]]:
        """Objects of parents of these classes: leaves filled in, a place kept for everything else.

        Raises where any value needs care.
        """
        # Documents that come once should not pay for code that is written for them.
        self._made += len(parents)
        if self._made < WORTH_GENERATING:
            return self._make(parents)
        ways = {issubclass(kind, self._rows) for kind in kinds}
        if len(ways) != 1:
            return self._make(parents)
        items = ways.pop()
        if items not in self._generated:
            self._generated[items] = compile_rows(self.fields, self._outline, items=items)
        return self._generated[items](parents)

    def _make(self, parents: Sequence[Any]) -> list[dict[str, Any]]:
        made = self.blank(len(parents))
        for field in self.inline:
            key, value, complete = field.key, field.value, field.complete
            assert complete is not None
            for parent, object_ in zip(parents, made, strict=True):
                object_[key] = complete(value(parent))
        return made

    def blank(self, count: int) -> list[dict[str, Any]]:
        """As many objects with nothing but constants, and places for the rest."""
        return [{field.key: field.constant for field in self.fields} for _ in range(count)]


def _nullable(type_: Any) -> tuple[bool, ...]:
    required = is_non_null_type(type_)
    inner = type_.of_type if required else type_
    return (not required, *(_nullable(inner.of_type) if is_list_type(inner) else ()))
