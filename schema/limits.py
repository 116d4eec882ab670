"""How big an operation may be: depth, aliases, and cost, which is the number of objects it may ask for.

Fragments are looked at once each, so that a document of fragments that spread fragments costs no more to check
than it is long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    Visitor,
    get_named_type,
    visit,
)

from core.errors import LimitExceeded
from core.paging import DEFAULT_PAGE, LARGEST_PAGE
from core.settings import Settings

_INTROSPECTION = frozenset({"__schema", "__type", "__typename"})


@dataclass(frozen=True, slots=True)
class _Size:
    depth: int
    aliases: int
    cost: int


def check_size(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: dict[str, Any],
    settings: Settings,
) -> None:
    """Raises LimitExceeded, with the size found and the limit."""
    root = schema.get_root_type(operation.operation)
    size = _Measure(schema, document, _page_sizes(operation) | variables).of(operation.selection_set, root)
    for name, found, limit, advice in (
        ("depth", size.depth, settings.max_query_depth, "Nest less deeply."),
        ("aliases", size.aliases, settings.max_query_aliases, "Send several operations."),
        (
            "cost",
            size.cost,
            settings.max_query_cost,
            "Ask for smaller pages (`first`), or for fewer lists within lists.",
        ),
    ):
        if found > limit:
            raise LimitExceeded(
                f"The operation's {name} is {found}; at most {limit} is allowed. {advice}",
                limit=name,
                found=min(found, 2**53),
                allowed=limit,
            )


def page_variables(document: DocumentNode) -> frozenset[str]:
    """The variables that an operation's size depends on."""
    found = _PageVariables()
    visit(document, found)
    return frozenset(found.names)


def _page_sizes(operation: OperationDefinitionNode) -> dict[str, Any]:
    """The whole numbers that variables are where the request does not give them."""
    return {
        definition.variable.name.value: int(definition.default_value.value)
        for definition in operation.variable_definitions or ()
        if isinstance(definition.default_value, IntValueNode)
    }


class _PageVariables(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_argument(self, node: ArgumentNode, *_: Any) -> None:
        if node.name.value == "first" and isinstance(node.value, VariableNode):
            self.names.add(node.value.name.value)


class _Measure:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode, variables: dict[str, Any]) -> None:
        self._schema, self._variables = schema, variables
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._known: dict[str, _Size] = {}

    def of(self, selections: SelectionSetNode | None, type_: Any) -> _Size:
        depth = aliases = cost = 0
        for node in selections.selections if selections else ():
            if isinstance(node, FieldNode):
                inner = self._field(node, type_)
            elif isinstance(node, FragmentSpreadNode):
                inner = self._fragment(node.name.value)
            else:
                assert isinstance(node, InlineFragmentNode)
                condition = node.type_condition
                inner = self.of(node.selection_set, self._schema.get_type(condition.name.value) if condition else type_)
            depth, aliases, cost = max(depth, inner.depth), aliases + inner.aliases, cost + inner.cost
        return _Size(depth, aliases, cost)

    def _field(self, node: FieldNode, type_: Any) -> _Size:
        alias = 1 if node.alias else 0
        name = node.name.value
        fields = type_.fields if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType) else {}
        # Introspection has a depth of its own and asks the database nothing.
        if name in _INTROSPECTION or name not in fields:
            return _Size(1, alias, 0)
        if not node.selection_set:
            return _Size(1, alias, 0)
        field = fields[name]
        inner = self.of(node.selection_set, get_named_type(field.type))
        times = self._page(node) if "first" in field.args else 1
        return _Size(inner.depth + 1, alias + inner.aliases, times * (1 + inner.cost))

    def _page(self, node: FieldNode) -> int:
        for argument in node.arguments or ():
            if argument.name.value == "first":
                value: Any = None
                if isinstance(argument.value, IntValueNode):
                    value = int(argument.value.value)
                elif isinstance(argument.value, VariableNode):
                    value = self._variables.get(argument.value.name.value)
                # GraphQL's Int takes 100.0 too. More than a page may have is refused where the page is read.
                return min(int(value), LARGEST_PAGE) if isinstance(value, int | float) and value > 0 else DEFAULT_PAGE
        return DEFAULT_PAGE

    def _fragment(self, name: str) -> _Size:
        if name not in self._known:
            node = self._fragments[name]
            self._known[name] = self.of(node.selection_set, self._schema.get_type(node.type_condition.name.value))
        return self._known[name]
