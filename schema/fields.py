"""How the types of the graph are declared. Descriptions are docstrings, so that none is forgotten.

- `entity` makes a type of the graph from rows of a table;
- `column` is a field that is a column of the row: metadata, not a function;
- `nested` is a field that is read by a batch function, once for all parents of an operation;
- `query`, `mutation`, `subscription` are root fields, each with its permission.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, NamedTuple, TypeVar, dataclass_transform
from uuid import UUID

import strawberry

from core.errors import Forbidden
from core.ids import PREFIXES, decode, encode, encode_many
from core.permissions import Permission
from models.base import Row
from schema.context import BatchFunction, Context, Info
from services import audit

T = TypeVar("T")
__all__ = [
    "Access",
    "Asked",
    "Column",
    "Info",
    "Nested",
    "Node",
    "Root",
    "admit",
    "column",
    "decode_ids",
    "entity",
    "enum_type",
    "id_column",
    "input_type",
    "mutation",
    "nested",
    "object_type",
    "query",
    "read",
    "subscription",
]
Decorator = Callable[[Callable[..., Any]], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A field's column, and how its value is shown. For executors that read rows without calling functions."""

    name: str | None
    """None where the column has the field's own name."""
    show: Callable[[Any], Any] | None
    show_many: Callable[[Sequence[Any]], Sequence[Any]] | None = None


@dataclass(frozen=True, slots=True)
class Nested:
    """A field's batch function, and the defaults of its arguments."""

    function: BatchFunction
    defaults: dict[str, Any]
    common: bool | Permission
    """Whether everybody of an organisation who sees the parents (and has this permission) is given the same."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a root field asks of its caller; None for what everybody may ask."""

    permission: Permission | None


@dataclass(frozen=True, slots=True)
class Root:
    """A root field's function, for executors that call it without what graphql-core tells a resolver."""

    function: Callable[..., Any]
    forgets: bool
    """Whether it changes things, so that what was read before it is not to be trusted after it."""


class Asked(NamedTuple):
    """What a root field's function uses of `info`."""

    context: Context
    field_name: str


def read(source: Any, name: str) -> Any:
    """The default resolver: an item of a row, an attribute of anything else."""
    return source[name] if isinstance(source, Row) else getattr(source, name)


@dataclass_transform(field_specifiers=(strawberry.field,))
def object_type(cls: type[T]) -> type[T]:
    """A plain type: payloads and values."""
    return strawberry.type(cls, description=_doc(cls))


@dataclass_transform(field_specifiers=(strawberry.field,))
def input_type(cls: type[T]) -> type[T]:
    """An input."""
    return strawberry.input(cls, description=_doc(cls))


def enum_type(cls: Any, descriptions: dict[str, str], *, name: str | None = None) -> Any:
    """An enum, with a description of every value; `name` where the graph calls it differently."""
    missing = set(cls.__members__) ^ set(descriptions)
    assert not missing, f"{cls.__name__}: describe {missing}"
    found = strawberry.enum(cls, name=name, description=_doc(cls))
    for value in found.__strawberry_definition__.values:
        value.description = descriptions[value.name]
    return found


@strawberry.interface(description="Anything that has an id of its own.")
class Node:
    @strawberry.field(description="Opaque and unique over everything: a prefix that names the kind, and 26 characters.")
    def id(self) -> strawberry.ID:
        raise NotImplementedError


def entity(row: type[Row]) -> Callable[[type[T]], type[T]]:
    """A type whose values are rows of this class. Its name has a prefix in core.ids."""

    def decorate(cls: type[T]) -> type[T]:
        kind = cls.__name__
        cls.is_type_of = classmethod(lambda _, value, info: isinstance(value, row))  # type: ignore[attr-defined]
        cls.__row__ = row  # type: ignore[attr-defined]
        cls.__annotations__["id"] = strawberry.ID
        cls.id = id_column(kind, f"Identifier, `{PREFIXES[kind]}_…`.", name="id")  # type: ignore[attr-defined]
        return strawberry.type(cls, description=_doc(cls))

    return decorate


def row_of(cls: type) -> type[Row] | None:
    """The class of an entity's rows; None for other types."""
    return cls.__dict__.get("__row__")


def column(
    description: str,
    *,
    name: str | None = None,
    show: Callable[[Any], Any] | None = None,
    show_many: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    field: str | None = None,
) -> Any:
    """A field that is a column. `name` where the column is called differently; `show` makes the field's value of it,
    and `show_many` those of many rows at once, where that is faster; `field` is the field's own name where it is a word
    of Python."""
    metadata = {"column": Column(name, show, show_many)}
    if name is None and show is None:
        return strawberry.field(name=field, description=description, metadata=metadata)
    assert name is not None, "a column with `show`, or with another name than its field, says it"

    def resolver(root: Any) -> Any:
        value = read(root, name)
        return value if value is None or show is None else show(value)

    del resolver.__annotations__["return"]  # the class annotation says the type
    return strawberry.field(resolver, name=field, description=description, metadata=metadata)


def id_column(kind: str, description: str, *, name: str) -> Any:
    """A field that is another row's id: a uuid column shown as that kind's TypeID."""
    prefix = PREFIXES[kind]
    return column(description, name=name, show=partial(encode, prefix), show_many=partial(encode_many, prefix))


def nested(function: BatchFunction, *, common: bool | Permission = False) -> Decorator:
    """A field read by a batch function. The decorated function declares arguments, type and description; its body,
    which may be `...`, is not run.

    `common` says that the result is the same for everybody of an organisation who sees the parents and has the same
    permissions, or for all of those who have one: then those who follow a stream together are given it together.
    """

    def decorate(declaration: Callable[..., Any]) -> Any:
        parameters = [p for p in inspect.signature(declaration).parameters.values() if p.name != "self"]
        defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}

        async def resolver(self: Any, info: Info, **args: Any) -> Any:
            return await info.context.batch(function, self, defaults | args)

        self_, info = (inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("self", "info"))
        return strawberry.field(
            _with_signature(resolver, declaration, [self_, info.replace(annotation=Info), *parameters]),
            description=_doc(declaration),
            metadata={"nested": Nested(function, defaults, common)},
        )

    return decorate


def query(permission: Permission | None) -> Decorator:
    """A root field that reads."""

    def decorate(function: Callable[..., Awaitable[Any]]) -> Any:
        @wraps(function)
        async def resolver(info: Info, **args: Any) -> Any:
            await admit(info, permission)
            return await function(info, **args)

        return strawberry.field(
            resolver, description=_doc(function), metadata=_root(permission, function, forgets=False)
        )

    return decorate


def mutation(permission: Permission | None) -> Decorator:
    """A root field that writes."""

    def decorate(function: Callable[..., Awaitable[Any]]) -> Any:
        @wraps(function)
        async def resolver(info: Info, **args: Any) -> Any:
            info.context.forget()
            await admit(info, permission)
            return await function(info, **args)

        return strawberry.mutation(
            resolver, description=_doc(function), metadata=_root(permission, function, forgets=True)
        )

    return decorate


def subscription(permission: Permission | None) -> Decorator:
    """A root field that streams. Each event is read afresh.

    The function is an async generator, or returns a `Following`: then clients that ask for the same share the work.
    """

    def decorate(function: Callable[..., AsyncIterable[Any]]) -> Any:
        @wraps(function)
        async def resolver(info: Info, **args: Any) -> Any:
            await admit(info, permission)
            async with aclosing(aiter(function(info, **args))) as stream:  # type: ignore[type-var]
                async for event in stream:
                    info.context.forget()
                    yield event

        return strawberry.subscription(
            resolver, description=_doc(function), metadata=_root(permission, function, forgets=False)
        )

    return decorate


def _root(permission: Permission | None, function: Callable[..., Any], *, forgets: bool) -> dict[Any, Any]:
    return {"access": Access(permission), "root": Root(function, forgets)}


async def admit(info: Info | Asked, permission: Permission | None) -> None:
    """Raises where the caller may not use the field. A refusal for want of permission is audited; who is not
    signed in at all leaves a line in the log only, so that nobody can fill the audit log from outside."""
    if permission is None:
        return
    actor = info.context.actor
    try:
        actor.require(permission)
    except Forbidden as error:
        await audit.refused(audit.Entry.of(actor, f"graph.{info.field_name}"), error)
        raise


def decode_ids(kind: str, ids: list[strawberry.ID] | None, field: str) -> list[UUID] | None:
    """A list of ids of one kind, checked."""
    return None if ids is None else [decode(PREFIXES[kind], id_, field=field) for id_ in ids]


def _with_signature(resolver: Any, declaration: Any, parameters: list[inspect.Parameter]) -> Any:
    resolver.__name__, resolver.__module__ = declaration.__name__, declaration.__module__
    resolver.__signature__ = inspect.signature(declaration).replace(parameters=parameters)
    resolver.__annotations__ = declaration.__annotations__ | {"info": Info}
    return resolver


def _doc(thing: Any) -> str:
    found = inspect.getdoc(thing)
    assert found, f"{thing.__qualname__} needs a docstring: it is shown in GraphiQL"
    return " ".join(found.split())
