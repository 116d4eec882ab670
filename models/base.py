"""What the models of all domains share: row objects, a JSON field, and scopes of visibility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from tortoise import fields
from tortoise.models import Model

T = TypeVar("T")


class Row(asyncpg.Record):
    """A row as the driver gives it: by name as an item or as an attribute. The cheapest object a read can return."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class JsonField(fields.Field[Any], dict):  # type: ignore[type-arg]
    """A `jsonb` column. Encoding is the connection's (core.db), for Tortoise and plain asyncpg alike."""

    SQL_TYPE = "JSONB"
    indexable = False

    def to_db_value(self, value: Any, instance: type[Model] | Model) -> Any:
        return value

    def to_python_value(self, value: Any) -> Any:
        return value


class TextArrayField(fields.Field[list[str]], list):  # type: ignore[type-arg]
    """A `text[]` column."""

    SQL_TYPE = "TEXT[]"

    def to_db_value(self, value: Any, instance: type[Model] | Model) -> Any:
        return None if value is None else list(value)

    def to_python_value(self, value: Any) -> Any:
        return value


class UuidArrayField(fields.Field[list[UUID]], list):  # type: ignore[type-arg]
    """A `uuid[]` column."""

    SQL_TYPE = "UUID[]"

    def to_db_value(self, value: Any, instance: type[Model] | Model) -> Any:
        return None if value is None else list(value)

    def to_python_value(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class Scope:
    """A condition on the rows an actor may see, with `{n}` where its first parameter's number goes.

    Made by a model's `visible_to(actor)`; `Query.scope` puts it into a statement.
    """

    condition: str
    args: Sequence[Any] = ()
    by_row: str | None = None
    """The condition for statements that name their rows by id: it is asked of each row, where `condition` may come to
    all that the actor sees. It may also let through what is in no list. None where it would be the same."""
    by_row_args: Sequence[Any] | None = None
    """Its parameters, where they are not those of `condition`."""

    @property
    def of_row(self) -> tuple[str, Sequence[Any]]:
        """The condition, and its parameters, for statements that name their rows by id."""
        if self.by_row is None:
            return self.condition, self.args
        return self.by_row, self.args if self.by_row_args is None else self.by_row_args


class Query:
    """Collects parameters while a statement is written, so that no value is ever pasted into SQL."""

    __slots__ = ("args",)

    def __init__(self) -> None:
        self.args: list[Any] = []

    def arg(self, value: Any) -> str:
        """The placeholder of a value."""
        self.args.append(value)
        return f"${len(self.args)}"

    def scope(self, scope: Scope, *, by_row: bool = False) -> str:
        """The scope's condition with its parameters numbered after those so far; `by_row` for some rows by id."""
        condition, args = scope.of_row if by_row else (scope.condition, scope.args)
        return condition.format(*(self.arg(value) for value in args))
