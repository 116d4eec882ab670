"""Random operations over a schema: valid documents, with variables that are mostly right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
)

from core.paging import encode_cursor

Sample = Callable[[Random, str, str], Any]
"""`(random, scalar type, argument or input field) -> a JSON value`: what is worth asking for."""


@dataclass
class Operation:
    """A document, and the variables to send with it."""

    text: str
    variables: dict[str, Any]


@dataclass
class Generator:
    """Makes operations. `avoid` are fields, as `Type.field`, whose values differ from one reading to the next;
    `often` are names to prefer."""

    schema: GraphQLSchema
    random: Random
    sample: Sample
    avoid: frozenset[str] = frozenset()
    often: frozenset[str] = frozenset()
    _definitions: list[str] = field(default_factory=list)
    _variables: dict[str, tuple[str, bool, Callable[[], Any]]] = field(default_factory=dict)
    _fragments: dict[str, tuple[str, str]] = field(default_factory=dict)
    _budget: int = 0

    def query(self) -> Operation:
        """A query."""
        assert self.schema.query_type is not None
        return self._operation("query", self.schema.query_type, self.random.choice((1, 1, 1, 2, 3)))

    def _operation(self, kind: str, root: GraphQLObjectType, roots: int) -> Operation:
        self._definitions, self._variables, self._fragments = [], {}, {}
        self._budget = self.random.choice((15, 40, 100))
        body = self._selections(root, depth=0, most=roots)
        head = f"({', '.join(self._definitions)})" if self._definitions else ""
        fragments = "".join(f" fragment {name} on {on} {text}" for name, (on, text) in self._fragments.items())
        return Operation(f"{kind} Q{head} {body}{fragments}", self.variables())

    def variables(self) -> dict[str, Any]:
        """Other values for the variables of the last operation: mostly right, some missing, null or wrong."""
        values: dict[str, Any] = {"neverDeclared": 1} if self._chance(0.02) else {}
        for name, (type_, has_default, make) in self._variables.items():
            chance = self.random.random()
            if chance < 0.006:
                values[name] = self.random.choice([None, 1.5, "text", True, [], {}, [None], {"no": 1}, 2**40])
            elif chance < 0.06 and (has_default or not type_.endswith("!")):
                if chance < 0.02 and not type_.endswith("!"):
                    values[name] = None
            elif chance > 0.062:
                values[name] = make()
        return values

    def _chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def _selections(self, type_: Any, depth: int, most: int | None = None) -> str:
        fields = self._fields(type_, depth)
        count = most or self.random.randint(1, min(9, len(fields) + 1))
        parts = []
        for _ in range(count):
            self._budget -= 1
            if depth and self._chance(0.1) and depth < 7:
                parts.append(self._inline_fragment(type_, depth))
            elif depth and self._chance(0.1) and depth < 7:
                parts.append(self._spread(type_, depth))
            elif self._chance(0.08) or not fields:
                parts.append(f"{self._alias('t')}__typename{self._directives()}")
            else:
                name = self._weighed(fields, 0.3 if depth else 0.8)
                parts.append(self._field(type_, name, fields[name], depth))
                if self._chance(0.08):
                    parts.append(parts[-1])
        return "{ " + " ".join(parts) + " }"

    def _weighed(self, fields: dict[str, GraphQLField], deeper: float) -> str:
        """Lists and objects more often than there are of them among the leaves."""
        deep = [name for name, field_ in fields.items() if not is_leaf_type(get_named_type(field_.type))]
        often = [name for name in deep if name in self.often]
        if often and self._chance(deeper):
            return self.random.choice(often)
        return self.random.choice(deep if deep and self._chance(0.3) else list(fields))

    def _fields(self, type_: Any, depth: int) -> dict[str, GraphQLField]:
        if not hasattr(type_, "fields"):
            return {}
        tired = depth > 8 or self._budget < 0
        return {
            name: field_
            for name, field_ in type_.fields.items()
            if f"{type_}.{name}" not in self.avoid and not (tired and not is_leaf_type(get_named_type(field_.type)))
        }

    def _alias(self, base: str) -> str:
        return f"{base}{self.random.randint(0, 10**6)}: " if self._chance(0.3) else ""

    def _field(self, type_: Any, name: str, field_: GraphQLField, depth: int) -> str:
        arguments = []
        for argument, definition in field_.args.items():
            rare = argument in ("after", "filter")
            if not is_required_argument(definition) and self._chance(0.92 if rare else 0.5):
                continue
            arguments.append(f"{argument}: {self._given(definition.type, argument, definition)}")
        # A field with arguments gets a name of its own: merging it with another is refused where they differ.
        alias = f"a{self.random.randint(0, 10**6)}: " if arguments else self._alias("f")
        shown = f"({', '.join(arguments)})" if arguments else ""
        named = get_named_type(field_.type)
        inner = "" if is_leaf_type(named) else " " + self._selections(named, depth + 1)
        return f"{alias}{name}{shown}{self._directives()}{inner}"

    def _inline_fragment(self, type_: Any, depth: int) -> str:
        on = self._condition(type_)
        head = f"... on {on}" if on is not type_ or self._chance(0.5) else "..."
        return f"{head}{self._directives()} {self._selections(on, depth)}"

    def _spread(self, type_: Any, depth: int) -> str:
        on = self._condition(type_)
        known = [name for name, (known_on, _) in self._fragments.items() if known_on == on.name]
        if known and self._chance(0.5):
            return f"...{self.random.choice(known)}{self._directives()}"
        text = self._selections(on, depth + 1)
        name = f"F{len(self._fragments)}"
        self._fragments[name] = (on.name, text)
        return f"...{name}{self._directives()}"

    def _condition(self, type_: Any) -> Any:
        if is_abstract_type(type_):
            return self.random.choice([type_, *self.schema.get_possible_types(type_)])
        return self.random.choice([type_, type_, *getattr(type_, "interfaces", ())])

    def _directives(self) -> str:
        if not self._chance(0.12):
            return ""
        found = ""
        for name in self.random.choice((["skip"], ["include"], ["skip", "include"])):
            if self._chance(0.5):
                given = "true" if self._chance(0.7 if name == "include" else 0.3) else "false"
            else:
                default = "true" if self._chance(0.2) else None
                given = self._variable("Boolean!", lambda: self._chance(0.6), default)
            found += f" @{name}(if: {given})"
        return found

    # Input values

    def _given(self, type_: Any, name: str, definition: Any = None) -> str:
        if self._chance(0.4):

            def value() -> Any:
                return self._value(type_, name)

            has_default = definition is not None and definition.default is not None
            if has_default and is_non_null_type(type_) and self._chance(0.3):
                # A variable that may be null goes where a default stands in for it.
                return self._variable(str(type_.of_type), value)
            if is_non_null_type(type_) and self._chance(0.15):
                return self._variable(str(type_.of_type), value, default=self._literal(type_, name, constant=True))
            if not is_non_null_type(type_) and self._chance(0.2):
                return self._variable(str(type_), value, default=self._literal(type_, name, constant=True))
            return self._variable(str(type_), value)
        return self._literal(type_, name)

    def _variable(self, type_: str, make: Callable[[], Any], default: str | None = None) -> str:
        name = f"v{len(self._definitions)}"
        self._definitions.append(f"${name}: {type_}{f' = {default}' if default else ''}")
        self._variables[name] = (type_, default is not None, make)
        return f"${name}"

    def _value(self, type_: Any, name: str) -> Any:
        """A JSON value of an input type."""
        if is_non_null_type(type_):
            type_ = type_.of_type
        elif self._chance(0.08):
            return None
        if is_list_type(type_):
            if self._chance(0.1):
                return self._value(type_.of_type, name)
            return [self._value(type_.of_type, name) for _ in range(self.random.randint(0, 3))]
        if isinstance(type_, GraphQLInputObjectType):
            return {
                key: self._value(inner.type, key)
                for key, inner in type_.fields.items()
                if is_non_null_type(inner.type) or self._chance(0.25)
            }
        if isinstance(type_, GraphQLEnumType):
            return self.random.choice(list(type_.values))
        return self.sample(self.random, type_.name, name)

    def _literal(self, type_: Any, name: str, *, nested: bool = False, constant: bool = False) -> str:
        """The same as GraphQL text; within lists and objects sometimes a variable."""
        if nested and not constant and self._chance(0.15):
            wanted = type_
            return self._variable(str(wanted), lambda: self._value(wanted, name))
        if is_non_null_type(type_):
            type_ = type_.of_type
        elif self._chance(0.08):
            return "null"
        if is_list_type(type_):
            if self._chance(0.1):
                return self._literal(type_.of_type, name, constant=constant)
            items = range(self.random.randint(0, 3))
            shown = [self._literal(type_.of_type, name, nested=True, constant=constant) for _ in items]
            return f"[{', '.join(shown)}]"
        if isinstance(type_, GraphQLInputObjectType):
            members = [
                f"{key}: {self._literal(inner.type, key, nested=True, constant=constant)}"
                for key, inner in type_.fields.items()
                if is_non_null_type(inner.type) or self._chance(0.25)
            ]
            return "{" + ", ".join(members) + "}"
        if isinstance(type_, GraphQLEnumType):
            return self.random.choice(list(type_.values))
        return json.dumps(self.sample(self.random, type_.name, name))


_CURSORS = [encode_cursor("2"), encode_cursor("2020-01-01T00:00:00Z", str(UUID(int=5))), "nonsense", ""]


def sampler(ids: dict[str, Sequence[str]]) -> Sample:
    """Samples for the product's schema; `ids` are those of its database, by prefix."""
    moments = ["2026-01-01T00:00:00Z", "2027-01-01T00:00:00+02:00", "2030-05-05T10:00:00Z"]
    every = [id_ for some in ids.values() for id_ in some]

    def sample(random: Random, scalar: str, name: str) -> Any:
        if scalar == "ID":
            kind = {"sessionId": "ses", "ownerId": "usr", "userId": "usr", "actorId": "usr"}.get(name)
            if name == "id" and random.random() < 0.5:
                kind = "ses"
            chosen = ids.get(kind or "", every) if random.random() < 0.95 else [*every, "ses_nonsense", ""]
            return random.choice(list(chosen) or every)
        if scalar == "Int":
            return random.choice([0, -1, 101] if random.random() < 0.03 else [1, 1, 2, 2, 3, 5, 10, 100])
        if scalar == "BigInt":
            return random.choice([0, 1, 2**40])
        if scalar == "Boolean":
            return random.random() < 0.5
        if scalar == "DateTime":
            return random.choice(["yesterday"] if random.random() < 0.03 else moments)
        if name == "after":
            # Keysets by number, by id, and by time and id; a list takes one of them.
            return random.choice(_CURSORS if random.random() < 0.5 else _CURSORS[:1])
        if name == "fact":
            return random.choice(["tool", "run", "nonsense"])
        if name in ("dimension", "timezone"):
            return random.choice(["tool", "user", "Europe/Berlin", "UTC", "nonsense"])
        return random.choice(["Session 1", "a", "", "script", "MODEL", "é😀"])

    return sample
