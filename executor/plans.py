"""Plans by document and operation, bounded by what they weigh."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    Undefined,
    VariableNode,
)
from graphql.execution.collect_fields import FieldDetails, FragmentDetails, collect_fields, collect_subfields
from graphql.execution.values import VariableValues

from executor.fields import Definition, Field, Selection
from executor.inputs import Variables
from executor.run import Run
from executor.sources import Outline

LARGEST_WEIGHT = 20_000
"""Fields of all plans together; with the document's part each takes 1 to 2 KB."""
MOST_VARIANTS = 8
"""Ways of one operation's @skip and @include that are kept."""


Definitions = Callable[[GraphQLObjectType, GraphQLField], Definition]


class Unsupported(Exception):
    """The operation is for graphql-core; `reason` is a short name for the metrics. Nothing has been executed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Plans:
    """The plans of one schema."""

    def __init__(self, schema: GraphQLSchema, outline: Outline, *, largest_weight: int = LARGEST_WEIGHT) -> None:
        self._schema, self._outline, self._largest = schema, outline, largest_weight
        self._known: OrderedDict[tuple[str, str | None], Plan] = OrderedDict()
        self._weights: dict[tuple[str, str | None], int] = {}
        self._weight = 0
        # By identity: the schema keeps both alive.
        self._definitions: dict[tuple[int, int], Definition] = {}

    async def execute(
        self,
        text: str,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: dict[str, Any],
        context: Any,
        root: Any = None,
    ) -> ExecutionResult:
        """The result of a validated operation; `text` is the document's. Raises Unsupported."""
        key, plan = self._find(text, document, operation)
        try:
            begun = plan.begin(variables)
            if isinstance(begun, list):
                return ExecutionResult(None, begun)
            return await begun.execute(context, root)
        finally:
            self._weigh(key, plan)

    def begin(
        self, text: str, document: DocumentNode, operation: OperationDefinitionNode, variables: dict[str, Any]
    ) -> Begun | list[GraphQLError]:
        """A validated operation with its variables, or what is wrong with these. Raises Unsupported."""
        return self._find(text, document, operation)[1].begin(variables)

    def _find(
        self, text: str, document: DocumentNode, operation: OperationDefinitionNode
    ) -> tuple[tuple[str, str | None], Plan]:
        key = (text, operation.name.value if operation.name else None)
        plan = self._known.get(key)
        if plan is None:
            plan = self._known[key] = Plan(self._schema, document, operation, self._outline, self._define)
            self._weights[key] = 0
        else:
            self._known.move_to_end(key)
        return key, plan

    def _define(self, parent: GraphQLObjectType, field: GraphQLField) -> Definition:
        known = self._definitions.get((id(parent), id(field)))
        if known is None:
            known = self._definitions[id(parent), id(field)] = Definition(parent, field, self._outline)
        return known

    def __len__(self) -> int:
        return len(self._known)

    @property
    def weight(self) -> int:
        """Fields of all plans that are kept."""
        return self._weight

    def _weigh(self, key: tuple[str, str | None], plan: Plan) -> None:
        """Plans grow as parts of them are first needed."""
        known = self._weights.get(key)
        if known is None or known == plan.weight:
            return
        self._weights[key] = plan.weight
        self._weight += plan.weight - known
        while self._weight > self._largest and len(self._known) > 1:
            dropped, _ = self._known.popitem(last=False)
            self._weight -= self._weights.pop(dropped)


class Plan:
    """One operation of one document."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        outline: Outline,
        definitions: Definitions,
    ) -> None:
        self._schema, self._operation, self._outline, self._definitions = schema, operation, outline, definitions
        self.fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        selections = _selections([operation, *self.fragments.values()])
        self._unsupported = _reason(operation, selections)
        self._variables = Variables(schema, operation.variable_definitions or ())
        self._conditions = tuple(dict.fromkeys(_conditions(selections)))
        self._variants: dict[tuple[Any, ...], Variant] = {}

    @property
    def weight(self) -> int:
        """About as many fields as the plan takes memory of."""
        return 10 + len(self.fragments) + sum(variant.weight for variant in self._variants.values())

    def begin(self, variables: dict[str, Any]) -> Begun | list[GraphQLError]:
        """The operation with these variables, or what is wrong with them. Raises Unsupported."""
        if self._unsupported is not None:
            raise Unsupported(self._unsupported)
        values = self._variables.coerce(variables)
        if isinstance(values, list):
            return values
        return Begun(self._variant(values), values)

    def _variant(self, values: VariableValues) -> Variant:
        key = tuple([values.coerced.get(name, Undefined) for name in self._conditions])
        found = self._variants.get(key)
        if found is None:
            if any(value is not True and value is not False for value in key):
                # Which selections have this error depends on what is reached.
                raise Unsupported("condition_null")
            if len(self._variants) >= MOST_VARIANTS:
                self._variants.pop(next(iter(self._variants)))
            found = self._variants[key] = Variant(
                self._schema,
                self._operation,
                self.fragments,
                VariableValues({}, dict(zip(self._conditions, key, strict=True))),
                self._outline,
                self._definitions,
            )
        return found


class Begun:
    """An operation with its variables: ready to be executed, for every event anew where it is a subscription."""

    __slots__ = ("_values", "_variant")

    def __init__(self, variant: Variant, values: VariableValues) -> None:
        self._variant, self._values = variant, values

    async def execute(self, context: Any, root: Any = None) -> ExecutionResult:
        """Its result for a root value."""
        return await Run(self._variant, self._values, context, root).result()

    @property
    def fields(self) -> Sequence[Field]:
        """The fields of the root that are asked for."""
        return self._variant.root.fields

    @property
    def notes(self) -> dict[str, Any]:
        """What others have found out about the operation; kept as long as its plan."""
        return self._variant.notes

    def arguments(self, field: Field) -> dict[str, Any]:
        """A root field's coerced arguments; raises GraphQLError."""
        return field.arguments(self._values)


class Variant:
    """An operation with its conditions decided. What is asked at each place is worked out when it is first reached."""

    def __init__(
        self,
        schema: GraphQLSchema,
        operation: OperationDefinitionNode,
        fragments: dict[str, FragmentDefinitionNode],
        conditions: VariableValues,
        outline: Outline,
        definitions: Definitions,
    ) -> None:
        self.schema, self.operation, self.fragments, self.outline = schema, operation, fragments, outline
        self._conditions, self._definitions = conditions, definitions
        self._selections: dict[tuple[Field, GraphQLObjectType], Selection] = {}
        self.weight = 0
        self.notes: dict[str, Any] = {}
        self.serial = operation.operation is OperationType.MUTATION
        type_ = schema.get_root_type(operation.operation)
        if type_ is None:
            raise GraphQLError(f"Schema is not configured to execute {operation.operation.value} operation.", operation)
        details = {name: FragmentDetails(node) for name, node in fragments.items()}
        self._fragment_details = details
        found = collect_fields(schema, details, conditions, type_, operation)
        self.root = self._selection_of(type_, found.grouped_field_set)

    def selection(self, field: Field, type_: GraphQLObjectType, details: list[FieldDetails]) -> Selection:
        """What is asked of a field's values of this type."""
        known = self._selections.get((field, type_))
        if known is None:
            found = collect_subfields(
                self.schema, self._fragment_details, self._conditions, self.operation, type_, details
            )
            known = self._selections[field, type_] = self._selection_of(type_, found.grouped_field_set)
        return known

    def _selection_of(self, type_: GraphQLObjectType, grouped: dict[str, list[FieldDetails]]) -> Selection:
        fields = []
        for key, details in grouped.items():
            definition = self.schema.get_field(type_, details[0].node.name.value)
            if definition is not None:
                fields.append(Field(self, key, details, self._definitions(type_, definition)))
        self.weight += 1 + len(fields)
        return Selection(type_, fields, self.outline)


def _reason(operation: OperationDefinitionNode, selections: Sequence[SelectionNode]) -> str | None:
    if operation.directives:
        return "operation_directive"
    if any(isinstance(node, FieldNode) and node.name.value in ("__schema", "__type") for node in selections):
        return "introspection"
    return None


def _conditions(selections: Sequence[SelectionNode]) -> Iterator[str]:
    """The variables that decide on @skip and @include."""
    for selection in selections:
        for directive in selection.directives or ():
            if directive.name.value in ("skip", "include"):
                for argument in directive.arguments or ():
                    if isinstance(argument.value, VariableNode):
                        yield argument.value.name.value


def _selections(nodes: Iterable[OperationDefinitionNode | FragmentDefinitionNode]) -> list[SelectionNode]:
    """All selections in operations and fragments."""
    found: list[SelectionNode] = []
    sets: list[SelectionSetNode | None] = [node.selection_set for node in nodes]
    while sets:
        selections = sets.pop()
        if selections is not None:
            found += selections.selections
            sets += [getattr(node, "selection_set", None) for node in selections.selections]
    return found
