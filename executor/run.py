"""One execution of a plan: level by level, with every level's calls made for all of its objects at once.

Source: the GraphQL specification, September 2025, section 6 (Execution); errors and messages as graphql-core has them.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from graphql import (
    ExecutionResult,
    GraphQLError,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLResolveInfoHelpers,
    Undefined,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    located_error,
)
from graphql.execution.values import VariableValues
from graphql.pyutils import Path, gather_with_cancel, inspect, is_awaitable, is_iterable

from executor.fields import Field, Selection
from executor.leaves import complete_leaf
from executor.sources import Batch

if TYPE_CHECKING:
    from executor.plans import Variant

Place = tuple[int, ...]
"""Where in a field's value an object stands: the index in its list, in the list in there, …"""


class Level:
    """The objects of one type at one place of the operation, in all of their parents."""

    __slots__ = ("field", "objects", "owners", "parent", "places", "selection", "sources")

    def __init__(
        self,
        selection: Selection,
        sources: Sequence[Any],
        parent: Level | None = None,
        field: Field | None = None,
        owners: Sequence[int] = (),
        places: Sequence[Place] | None = None,
    ) -> None:
        self.selection, self.sources = selection, sources
        self.parent, self.field = parent, field
        self.owners = owners
        """For each object the number of its parent in the parents' level, ascending."""
        self.places = places
        """None where there are no lists, or where objects of an owner follow each other as in its list."""
        self.objects: list[dict[str, Any]] = []

    def place(self, number: int) -> Place:
        """Where in its field's value an object stands."""
        assert self.field is not None
        if self.places is not None:
            return self.places[number]
        if self.field.depth == 0:
            return ()
        return (number - bisect_left(self.owners, self.owners[number]),)

    def path(self, number: int) -> Path | None:
        """The response path of an object; None at the root."""
        if self.parent is None or self.field is None:
            return None
        path = Path(self.parent.path(self.owners[number]), self.field.key, self.field.parent.name)
        for index in self.place(number):
            path = Path(path, index, None)
        return path

    def field_path(self, number: int, field: Field) -> Path:
        """The response path of a field of an object."""
        return Path(self.path(number), field.key, field.parent.name)


class Run:
    """One execution."""

    def __init__(self, variant: Variant, variables: VariableValues, context: Any, root: Any) -> None:
        self._variant, self._variables, self._context, self._root = variant, variables, context, root
        self._errors: list[GraphQLError] = []
        self._nulled: set[tuple[str | int, ...]] = set()
        self._data: dict[str, Any] | None = None

    async def result(self) -> ExecutionResult:
        """Execute, and say what came of it."""
        variant = self._variant
        if not variant.serial:
            top = self._data = {}
            await self._finish(self._top(variant.root, top))
        else:
            top = self._data = {field.key: None for field in variant.root.fields}
            for field in variant.root.fields:
                made: dict[str, Any] = {}
                await self._finish(self._top(Selection(variant.root.type, [field], variant.outline), made))
                if self._data is None:
                    break  # a null that spread to the root: what follows is not executed
                top[field.key] = made[field.key]
        return ExecutionResult(self._data, self._errors or None)

    def _top(self, selection: Selection, made: dict[str, Any]) -> Level:
        level = Level(selection, [self._root])
        level.objects = [made]
        return level

    async def _finish(self, top: Level) -> None:
        """Execute a level and all below it, one round of calls after the other."""
        waiting: list[_Waiting] = []
        self._fill(top)
        self._descend(top, waiting)
        while waiting:
            if len(waiting) == 1:
                await waiting[0].values()
            else:
                await asyncio.gather(*[call.values() for call in waiting])
            answered, waiting = waiting, []
            for call in answered:
                self._complete(call.level, call.field, call.found, waiting)

    # Filling objects in

    def _descend(self, level: Level, waiting: list[_Waiting]) -> None:
        """Go on from objects whose leaves are there: to what is at hand now, and to calls for what is not."""
        selection = level.selection
        for field in selection.objects:
            self._complete(level, field, self._at_hand(level, field), waiting)
        waiting.extend(_BatchCall(self, level, field) for field in selection.batches)
        for field in selection.resolved:
            call = _Resolutions(self, level, field)
            if call.is_settled:
                self._complete(level, field, call.found, waiting)
            else:
                waiting.append(call)

    def _fill(self, level: Level) -> None:
        """Constants and places of the root."""
        for made in level.objects:
            for field in level.selection.fields:
                made[field.key] = field.constant
        self._fill_carefully(level)

    def _fill_carefully(self, level: Level) -> None:
        """Every leaf on its own, so that an error of one is its alone."""
        for field in level.selection.inline:
            self._complete_carefully(level, field, self._at_hand(level, field), [])

    def _at_hand(self, level: Level, field: Field) -> list[Any]:
        """The values of a field that is read or made of its parents; errors are among them."""
        found: list[Any] = []
        read = field.value
        for parent in level.sources:
            try:
                found.append(read(parent))
            except Exception as error:
                found.append(error)
        return found

    # Completing values

    def _complete(self, level: Level, field: Field, values: Sequence[Any], waiting: list[_Waiting]) -> None:
        """Put a field's values, one for each object of the level, where they belong, and go on from there."""
        if field.leaf:
            self._complete_leaves(level, field, values)
        elif not self._complete_plainly(level, field, values, waiting):
            self._complete_carefully(level, field, values, waiting)

    def _complete_leaves(self, level: Level, field: Field, values: Sequence[Any]) -> None:
        complete, key = field.complete, field.key
        assert complete is not None
        try:
            completed = [complete(value) for value in values]
        except Exception:
            self._complete_carefully(level, field, values, [])
        else:
            for made, value in zip(level.objects, completed, strict=True):
                made[key] = value

    def _complete_plainly(self, level: Level, field: Field, values: Sequence[Any], waiting: list[_Waiting]) -> bool:
        """The usual: values of one class, in at most one list, no errors, nulls only where they are allowed.
        False where it is not so, and nothing has been done."""
        if field.depth > 1:
            return False
        owners: Sequence[int] = range(len(values))
        lists = field.depth == 1
        if not all(values) and any(value is None for value in values):
            if not field.nullable[0]:
                return False
            owners = [number for number in owners if values[number] is not None]
            values = [values[number] for number in owners]
        if lists:
            if not {type(value) for value in values} <= _LISTS:
                return False
            items = [item for value in values for item in value]
            owners_of_items = [owner for owner, value in zip(owners, values, strict=True) for _ in range(len(value))]
        else:
            items, owners_of_items = values, owners  # type: ignore[assignment]
        kinds = set(map(type, items))
        selection = None
        for kind in kinds:
            found = field.fits(kind)
            if found is None or (selection is not None and found is not selection):
                return False
            selection = found
        key, objects = field.key, level.objects
        if selection is None:
            if lists:
                for owner in owners:
                    objects[owner][key] = []
            return True
        below = Level(selection, items, level, field, owners_of_items)
        filled = True
        try:
            below.objects = selection.make(kinds, items)
        except Exception:
            filled = False
            below.objects = selection.blank(len(items))
        if lists:
            start = 0
            for owner, value in zip(owners, values, strict=True):
                end = start + len(value)
                objects[owner][key] = below.objects[start:end]
                start = end
        else:
            for owner, made in zip(owners, below.objects, strict=True):
                objects[owner][key] = made
        if not filled:
            self._fill_carefully(below)
        self._descend(below, waiting)
        return True

    def _complete_carefully(self, level: Level, field: Field, values: Sequence[Any], waiting: list[_Waiting]) -> None:
        """Every value on its own, as section 6.4.3 (Value Completion) says."""
        found: list[_Found] = []
        failed: list[tuple[int, Exception]] = []
        for number, value in enumerate(values):
            mark = len(found)
            try:
                level.objects[number][field.key] = self._fit(field.type, value, level, field, number, (), found)
            except Exception as error:
                del found[mark:]
                failed.append((number, error))
        for number, reason in failed:
            self._fail(level, field, number, reason)
        for type_ in dict.fromkeys(item.type for item in found):
            same = [item for item in found if item.type is type_]
            selection = field.selection(type_)
            below = Level(
                selection,
                [item.value for item in same],
                level,
                field,
                [item.owner for item in same],
                [item.place for item in same],
            )
            below.objects = [item.made for item in same]
            for made in below.objects:
                made.update((inner.key, inner.constant) for inner in selection.fields)
            self._fill_carefully(below)
            self._descend(below, waiting)

    def _fit(
        self, type_: Any, value: Any, level: Level, field: Field, number: int, place: Place, found: list[_Found]
    ) -> Any:
        if isinstance(value, Exception):
            raise value
        if is_non_null_type(type_):
            completed = self._fit(type_.of_type, value, level, field, number, place, found)
            if completed is None:
                raise TypeError(f"Cannot return null for non-nullable field {field.parent}.{field.name}.")
            return completed
        if value is None or value is Undefined:
            return None
        if is_list_type(type_):
            return self._fit_list(type_.of_type, value, level, field, number, place, found)
        if is_leaf_type(type_):
            return complete_leaf(type_, value)
        made: dict[str, Any] = {}
        found.append(_Found(self._type_of(type_, value, level, field, number), value, number, place, made))
        return made

    def _fit_list(
        self, item_type: Any, value: Any, level: Level, field: Field, number: int, place: Place, found: list[_Found]
    ) -> list[Any]:
        if not is_iterable(value):
            raise GraphQLError(f"Expected Iterable, but did not find one for field '{field.parent}.{field.name}'.")
        mark = len(found)
        completed: list[Any] = []
        try:
            for index, item in enumerate(value):
                here = (*place, index)
                try:
                    completed.append(self._fit(item_type, item, level, field, number, here, found))
                except Exception as error:
                    path = [*level.field_path(number, field).as_list(), *here]
                    located = located_error(error, field.nodes, path)
                    if is_non_null_type(item_type):
                        raise located from None
                    self._record(located, tuple(path))
                    completed.append(None)
        except Exception:
            del found[mark:]
            raise
        return completed

    def _type_of(self, type_: Any, value: Any, level: Level, field: Field, number: int) -> GraphQLObjectType:
        info = self.info(level, field, number)
        if is_abstract_type(type_):
            named = field.type_resolver(value, info, type_)
            runtime = self._runtime_type(type_, named, field, value)
        else:
            runtime = type_
        if runtime.is_type_of is not None and not runtime.is_type_of(value, info):
            raise GraphQLError(f"Expected value of type '{runtime}' but got: {inspect(value)}.", field.nodes)
        return runtime

    def _runtime_type(self, type_: Any, name: Any, field: Field, value: Any) -> GraphQLObjectType:
        where = f"for field '{field.parent}.{field.name}'"
        must = f"Abstract type '{type_}' must resolve to an Object type at runtime {where}"
        schema = self._variant.schema
        if name is None:
            problem = (
                f"{must}. Either the '{type_}' type should provide a 'resolve_type' function or each possible type"
                " should provide an 'is_type_of' function."
            )
        elif not isinstance(name, str):
            problem = (
                f"{must} with value {inspect(value)}, received '{inspect(name)}', which is not a valid Object type"
                " name."
            )
        elif (found := schema.get_type(name)) is None:
            problem = f"Abstract type '{type_}' was resolved to a type '{name}' that does not exist inside the schema."
        elif not isinstance(found, GraphQLObjectType):
            problem = f"Abstract type '{type_}' was resolved to a non-object type '{name}'."
        elif not schema.is_sub_type(type_, found):
            problem = f"Runtime Object type '{found}' is not a possible type for '{type_}'."
        else:
            return found
        raise GraphQLError(problem, field.nodes)

    # Errors

    def _fail(self, level: Level, field: Field, number: int, error: Exception) -> None:
        """A field's error: null takes its place, or the place of the nearest parent that may be null."""
        path = level.field_path(number, field).as_list()
        located = located_error(error, field.nodes, path)
        if field.nullable[0]:
            level.objects[number][field.key] = None
            self._record(located, tuple(path))
        else:
            self._record(located, self._null(level, number))

    def _record(self, error: GraphQLError, position: tuple[str | int, ...]) -> None:
        """Keep an error, unless what it would be in is null already because of another."""
        if any(position[:length] in self._nulled for length in range(len(position) + 1)):
            return
        self._nulled.add(position)
        self._errors.append(error)

    def _null(self, level: Level, number: int) -> tuple[str | int, ...]:
        """Make an object null, or the nearest place around it that may be; returns the path of that place."""
        while level.parent is not None and level.field is not None:
            field, owner, place = level.field, level.owners[number], level.place(number)
            keys: list[Any] = [field.key, *place]
            for depth in range(len(place), -1, -1):
                if field.nullable[depth]:
                    container: Any = level.parent.objects[owner]
                    for key in keys[:depth]:
                        container = container[key] if container is not None else None
                    if container is not None:
                        container[keys[depth]] = None
                    return (*level.parent.field_path(owner, field).as_list(), *place[:depth])
            level, number = level.parent, owner
        self._data = None
        return ()

    # Resolvers

    def info(self, level: Level, field: Field, number: int) -> GraphQLResolveInfo[Any]:
        """What a resolver is told of where it is."""
        variant = self._variant
        return GraphQLResolveInfo(
            field.name,
            field.nodes,
            field.type,
            field.parent,
            level.field_path(number, field),
            variant.schema,
            variant.fragments,
            self._root,
            variant.operation,
            self._variables,
            self._context,
            is_awaitable,
            None,
            _HELPERS,
        )

    def arguments(self, field: Field) -> dict[str, Any]:
        """The field's arguments; raises GraphQLError."""
        return field.arguments(self._variables)

    @property
    def context(self) -> Any:
        return self._context


class _Found:
    """An object among a field's values, before its own fields."""

    __slots__ = ("made", "owner", "place", "type", "value")

    def __init__(self, type_: GraphQLObjectType, value: Any, owner: int, place: Place, made: dict[str, Any]) -> None:
        self.type, self.value, self.owner, self.place, self.made = type_, value, owner, place, made


class _Waiting:
    """A field whose values have to be waited for."""

    __slots__ = ("field", "found", "level", "run")

    def __init__(self, run: Run, level: Level, field: Field) -> None:
        self.run, self.level, self.field = run, level, field
        self.found: Sequence[Any] = ()

    async def values(self) -> None:
        """Find the values, or an error in place of each that there is none of."""
        raise NotImplementedError


class _BatchCall(_Waiting):
    """One call for all parents. The same parent twice is asked for once."""

    __slots__ = ()

    async def values(self) -> None:
        source, parents = self.field.source, self.level.sources
        assert isinstance(source, Batch)
        try:
            args = source.convert(self.run.arguments(self.field))
            distinct = {id(parent): parent for parent in parents}
            asked = parents if len(distinct) == len(parents) else list(distinct.values())
            found = await source.function(self.run.context, asked, args)
            if len(found) != len(asked):
                raise TypeError(
                    f"The batch function of {self.field.parent}.{self.field.name} returned {len(found)} results for "
                    f"{len(asked)} parents."
                )
        except Exception as error:
            self.found = [error] * len(parents)
            return
        if asked is parents:
            self.found = found
        else:
            by_parent = dict(zip(distinct, found, strict=True))
            self.found = [by_parent[id(parent)] for parent in parents]


class _Resolutions(_Waiting):
    """A resolver called for each parent. What it returns at once is there at once."""

    __slots__ = ("is_settled",)

    def __init__(self, run: Run, level: Level, field: Field) -> None:
        super().__init__(run, level, field)
        found: list[Any] = []
        for number, parent in enumerate(level.sources):
            try:
                found.append(field.resolve(parent, run.info(level, field, number), **run.arguments(field)))
            except Exception as error:
                found.append(error)
        self.found = found
        self.is_settled = not any(_has_to_wait(value, field.depth) for value in found)

    async def values(self) -> None:
        self.found = await _all(self.found, self.field.depth)


def _has_to_wait(value: Any, depth: int) -> bool:
    """Whether there is something to await in a value of so many lists within each other."""
    if is_awaitable(value):
        return True
    return depth > 0 and (
        hasattr(value, "__aiter__")
        or (isinstance(value, list | tuple) and any(_has_to_wait(item, depth - 1) for item in value))
    )


async def _all(values: Iterable[Any], depth: int) -> list[Any]:
    """Values with everything awaited; errors are among them."""
    values = list(values)
    numbers = [number for number, value in enumerate(values) if _has_to_wait(value, depth)]
    if len(numbers) == 1:
        values[numbers[0]] = await _one(values[numbers[0]], depth)
    elif numbers:
        found = await asyncio.gather(*[_one(values[number], depth) for number in numbers])
        for number, value in zip(numbers, found, strict=True):
            values[number] = value
    return values


async def _one(value: Any, depth: int) -> Any:
    try:
        if is_awaitable(value):
            value = await value
        if depth and hasattr(value, "__aiter__"):
            value = [item async for item in value]
    except Exception as error:
        return error
    if depth and isinstance(value, list | tuple) and _has_to_wait(value, depth):
        return await _all(value, depth - 1)
    return value


async def _gather(values: Sequence[Awaitable[Any]]) -> list[Any]:
    return await gather_with_cancel(*values)


_LISTS = {list, tuple}
_HELPERS = GraphQLResolveInfoHelpers(gather=_gather, track=lambda values: None)
