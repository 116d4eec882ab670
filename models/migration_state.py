"""Tortoise's migrations without what ours do not need, which takes most of their time.

Before each operation Tortoise copies its idea of the whole schema, and prepares the queries and filters of every model
anew after it: for tables of our number that is a quarter of a second, a hundred times. Our operations change tables
and run SQL; none reads rows through models, and only a changed field is compared with what it was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from tortoise import Tortoise
from tortoise.connection import get_connection
from tortoise.migrations.executor import MigrationExecutor, MigrationTarget
from tortoise.migrations.graph import MigrationKey
from tortoise.migrations.migration import Migration
from tortoise.migrations.schema_generator.state import State
from tortoise.migrations.schema_generator.state_apps import StateApps


async def run_migrations(
    config: dict[str, Any],
    *,
    target: str = "__latest__",
    progress: Callable[[str, str, str], object] | None = None,
) -> None:
    """As `tortoise.migrations.api.migrate` of our app. `progress` is told of events, apps and names of migrations."""
    await Tortoise.init(config=config, init_connections=False)
    executor = _Executor(get_connection("default"), config["apps"])
    await executor.migrate([MigrationTarget("models", target)], progress=progress)


class _Executor(MigrationExecutor):
    """Does what Tortoise's does, on a state that is copied when somebody looks at the copy."""

    async def _project_state(self, applied: set[MigrationKey], *, upto: MigrationKey | None = None) -> State:
        state = self._nothing()
        async for key in self._replayed(state, applied):
            if key == upto:
                break
        return state

    async def _project_state_cache(self, applied: set[MigrationKey]) -> dict[MigrationKey, State]:
        state = self._nothing()
        return {key: state.clone() async for key in self._replayed(state, applied)}

    def _nothing(self) -> State:
        connections = {name: app.get("default_connection", "default") for name, app in self.loader.apps_config.items()}
        return _State({}, _Apps(default_connections=connections))

    async def _replayed(self, state: State, applied: set[MigrationKey]) -> AsyncIterator[MigrationKey]:
        """The migrations that are applied, each before the state has it."""
        for key in self._full_plan():
            if key in applied:
                yield key
                migration = self.loader.graph.nodes[key]
                assert isinstance(migration, Migration)
                await migration.apply(state, dry_run=True, schema_editor=None)


class _Apps(StateApps):
    def _build_initial_querysets(self) -> None:
        """Not: nobody queries."""


class _State(State):
    def clone(self) -> State:
        return _Copy({key: model.clone() for key, model in self.models.items()}, self.apps)


class _Copy(_State):
    """A state as it was: its model classes are made when they are asked for."""

    _apps: StateApps
    _is_made: bool

    @property
    def apps(self) -> StateApps:
        if not self._is_made:
            self._apps, self._is_made = self._apps.clone(model_states=self.models), True
        return self._apps

    @apps.setter
    def apps(self, source: StateApps) -> None:
        # Of the source only the names of connections: the models are those that were copied.
        self._apps, self._is_made = source, False

    def clone(self) -> State:
        return _Copy({key: model.clone() for key, model in self.models.items()}, self._apps)
