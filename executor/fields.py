"""What a plan is made of: the fields of an object at one place of an operation, and what they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLObjectType,
    default_type_resolver,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from executor.inputs import compile_arguments
from executor.leaves import MakeRows, compile_completer, compile_rows
from executor.sources import Batch, Call, Outline, Read, Resolve

if TYPE_CHECKING:
    from graphql.execution.collect_fields import FieldDetails

    from executor.plans import Variant


class Field:
    """One response key of an object: all nodes of the document that ask for it, merged."""

    def __init__(
        self, variant: Variant, key: str, details: list[FieldDetails], parent: GraphQLObjectType, field: GraphQLField
    ) -> None:
        self._variant, self._details = variant, details
        self.key, self.parent, self.definition = key, parent, field
        self.nodes: list[FieldNode] = [detail.node for detail in details]
        self.name = self.nodes[0].name.value
        self.type = field.type
        self.named = get_named_type(field.type)
        self.constant = parent.name if self.name == "__typename" else None
        self.source = variant.outline.source(field)
        self.resolve = field.resolve or variant.default_resolver
        self.leaf = is_leaf_type(self.named)
        self.inline = self.leaf and isinstance(self.source, Read | Call) and self.constant is None
        self.complete = compile_completer(field.type) if self.leaf else None
        self.arguments = compile_arguments(field, self.nodes[0])
        self.nullable = _nullable(field.type)
        """Whether null is allowed: of the field itself, of its list's items, of their items, …"""
        self.depth = len(self.nullable) - 1
        self._fits: dict[type, Selection | None] = {}

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
        self.type, self.fields, self.outline = type_, fields, outline
        self.inline = [field for field in fields if field.inline]
        self.objects = [f for f in fields if not f.leaf and isinstance(f.source, Read | Call)]
        self.batches = [field for field in fields if isinstance(field.source, Batch)]
        self.resolved = [f for f in fields if isinstance(f.source, Resolve) and f.constant is None]
        self._make: dict[bool, MakeRows] = {}

    def make(self, kinds: set[type]) -> MakeRows | None:
        """The function that makes the leaves of parents of these classes; None where they are of both ways of
        reading."""
        found = {issubclass(kind, self.outline.rows) for kind in kinds}
        if len(found) != 1:
            return None
        items = found.pop()
        if items not in self._make:
            self._make[items] = compile_rows(self.fields, items=items)
        return self._make[items]


def _nullable(type_: Any) -> tuple[bool, ...]:
    required = is_non_null_type(type_)
    inner = type_.of_type if required else type_
    return (not required, *(_nullable(inner.of_type) if is_list_type(inner) else ()))
