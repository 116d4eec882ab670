"""Live operations: executed once and encoded once for all who ask for the same and may see the same.

A subscriber first gets what it has missed, executed for it alone. Where it has come to the end of the log, it joins the
group of those with the same document, variables and scope; from there on an event is executed and encoded once, and
each sink is handed the same bytes. A sink that has no room leaves the group and catches up on its own, at its own pace:
it neither delays the others nor makes anybody keep anything for it but its place.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import orjson
from graphql import (
    SKIP,
    FieldNode,
    GraphQLError,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    OperationType,
    TypeInfo,
    TypeInfoVisitor,
    VariableNode,
    Visitor,
    VisitorAction,
    is_abstract_type,
    located_error,
    visit,
)
from strawberry.types.field import StrawberryField

from core.permissions import Actor, ActorKind, Origin, Permission, Role
from executor import Begun, Field
from schema.arguments import Converters
from schema.bodies import Body, body_of, encoded, failure
from schema.context import Context
from schema.errors import formatted
from schema.execution import Graph, Prepared
from schema.fields import Asked, Nested, Root, admit
from schema.plans import declared
from subscriptions.tails import Following, Listener, Tail

MOST_WAITING = 1000
"""Events that wait to be executed for a group; more are read from the log again."""
MOST_MADE = 16
REMEMBERED_SECONDS = 1.0
REMEMBERED_BYTES = 1_000_000
"""What those who come back together are given without executing it for each."""


class Batch:
    """Payloads in order, for many sinks."""

    __slots__ = ("_made", "payloads")

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.payloads = payloads
        self._made: dict[Hashable, bytes] = {}

    def made_once(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """What one sink makes of the payloads, so that others with the same key need not. The first few keys are kept:
        where every sink has one of its own, nothing is gained by it."""
        found = self._made.get(key)
        if found is None:
            found = make()
            if len(self._made) < MOST_MADE:
                self._made[key] = found
        return found


class Gone(Exception):
    """The client is not there any more, or does not read: there is nobody to tell."""


class Sink(Protocol):
    """Where one subscriber's results go."""

    async def send(self, payload: bytes) -> None:
        """Wait until there is room, and send; raises Gone."""

    def offer(self, batch: Batch) -> bool:
        """Send at once; False, and nothing is sent, where there is no room."""

    def end(self, refused: Body | None) -> None:
        """There will be no more: because of an error, or because the stream is over."""


class Live:
    """The live operations that this process executes for many at once."""

    def __init__(self, graph: Graph, schema: GraphQLSchema) -> None:
        self._graph, self._schema = graph, schema
        described = getattr(schema, "_strawberry_schema", None)
        self._converters = Converters(described) if described is not None else None
        self._groups: dict[Hashable, _Group] = {}
        self._remembered = _Remembered()
        self.executed = 0
        """How many times an event was executed."""
        self.delivered = 0
        """How many times one was given to somebody."""
        self.open_now = 0
        """How many subscribers there are."""

    @property
    def groups(self) -> int:
        """How many operations are executed for all who ask for the same."""
        return len(self._groups)

    @property
    def joined(self) -> int:
        """How many subscribers have all there is, and share what comes."""
        return sum(len(group) for group in self._groups.values())

    def open(self, prepared: Prepared, context: Context, sink: Sink) -> Subscriber | None:
        """A subscriber to be started; None where the operation has no plan, or is no subscription of ours."""
        if prepared.kind is not OperationType.SUBSCRIPTION:
            return None
        begun = self._graph.begin(prepared)
        if begun is None or self._converters is None:
            return None
        [field] = begun.fields
        found = declared(field.definition.field)
        if found is None or not isinstance(found.metadata.get("root"), Root):
            return None
        source = _Source(begun, field, found, self._converters.of(found))
        return Subscriber(self, prepared, begun, source, context, sink)

    def join(self, subscriber: Subscriber, key: Hashable, tail: Tail[Any], actor: Actor, cursor: str) -> _Group:
        """Take a subscriber that stands where its tail stands into the group of its like. Raises what the tail ended
        by."""
        group = self._groups.get(key)
        if group is None:
            group = _Group(self, key, tail, subscriber.begun, actor)
            tail.join(group)
            self._groups[key] = group
        group.join(subscriber, cursor)
        return group

    def group_of(self, subscriber: Subscriber, following: Following[Any]) -> tuple[Hashable, Actor]:
        """What has to be equal for results to be equal, and in whose name they are read then."""
        prepared, actor = subscriber.prepared, subscriber.context.actor
        facts = _facts(self._schema, prepared, subscriber.begun)
        variables = {name: value for name, value in prepared.variables.items() if name != facts.resumed_by}
        asked = (
            following.tail,
            prepared.text,
            prepared.operation_name,
            orjson.dumps(variables, option=orjson.OPT_SORT_KEYS, default=str),
            actor.organization_id,
            actor.permissions,
        )
        if facts.common is None or not facts.common <= actor.permissions:
            return (*asked, actor.user_id, actor.kind, actor.role), actor
        # All of them may see what they follow, and the rest is the same for everybody who does.
        everybody = Actor(ActorKind.SYSTEM, actor.organization_id, Role.OWNER, None, actor.permissions)
        return asked, everybody

    async def payload(self, step: Hashable, make: Callable[[], Awaitable[tuple[bytes, bool]]]) -> bytes:
        """An event's payload: what another of the group, at the same place, was given a moment ago, or made anew.

        A step is the group, the state of the log, the cursor before and the event's own: of text the client gets what
        it does not have.
        """
        found = self._remembered.get(step)
        if found is None:
            found, is_whole = await make()
            if is_whole:  # an error may be this client's alone, or of this moment
                self._remembered.put(step, found)
        return found

    async def execute(self, begun: Begun, context: Context, event: Any) -> tuple[bytes, bool]:
        """An event as a client gets it, and whether it is without errors."""
        result = await begun.execute(context, event)
        self.executed += 1
        self._graph.outcomes["errors" if result.errors else "ok"] += 1
        return encoded(body_of(result)), not result.errors

    def dissolve(self, key: Hashable) -> None:
        """A group has no members any more."""
        self._groups.pop(key, None)


class Subscriber:
    """One client's live operation."""

    def __init__(
        self, live: Live, prepared: Prepared, begun: Begun, source: _Source, context: Context, sink: Sink
    ) -> None:
        self._live, self._source, self._sink = live, source, sink
        self.prepared, self.begun, self.context = prepared, begun, context
        self._following: Following[Any] | None = None
        self._group: _Group | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        live.open_now += 1

    def start(self, after: str | None = None) -> None:
        """Begin where the arguments say, or after a cursor."""
        self._task = asyncio.create_task(self._go_on(after))

    def stop(self) -> None:
        """The client has left. May be called again."""
        if not self._ended:
            self._ended = True
            self._live.open_now -= 1
        if self._group is not None:
            self._group.leave(self)
            self._group = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None
        self._close()

    def offer(self, batch: Batch) -> bool:
        """Hand over what is new; False where there is no room for it."""
        return self._sink.offer(batch)

    def fall_behind(self, cursor: str) -> None:
        """The client has everything up to a cursor, and no room for more: it goes on alone until it has caught up."""
        self._group = None
        self._close()
        self.start(cursor)

    def fail(self, error: Exception) -> None:
        """There is no more for this client."""
        if not self._ended:
            self.stop()
            self._sink.end(_refused(error))

    async def _go_on(self, after: str | None) -> None:
        try:
            stream, after = await self._source.open(self.context, after)
            if isinstance(stream, Following):
                await self._follow(stream, after or "")
                return  # in the group, or ended
            async with aclosing(stream) as events:
                async for event in events:
                    await self._sink.send((await self._payload(event))[0])
                    self._live.delivered += 1
        except Gone:
            self.stop()
        except Exception as error:
            self.fail(error)
        else:
            if not self._ended:
                self.stop()
                self._sink.end(None)

    async def _follow(self, following: Following[Any], cursor: str) -> None:
        following.ended = self.fail
        following.open()
        self._following = following
        key, actor = self._live.group_of(self, following)
        async for event in following.missed():
            step = (key, following.state, cursor, event.cursor)
            await self._sink.send(await self._live.payload(step, partial(self._payload, event)))
            self._live.delivered += 1
            cursor = event.cursor
            if self._ended:
                return
        # Nothing is awaited between here and the end of what was missed.
        self._task = None
        self._group = self._live.join(self, key, following.tail, actor, cursor)

    async def _payload(self, event: Any) -> tuple[bytes, bool]:
        self.context.forget()
        return await self._live.execute(self.begun, self.context, event)

    def _close(self) -> None:
        following, self._following = self._following, None
        if following is not None:
            following.close()


class _Group(Listener[Any]):
    """Subscribers of one operation in one scope, who stand where their tail stands."""

    def __init__(self, live: Live, key: Hashable, tail: Tail[Any], begun: Begun, actor: Actor) -> None:
        self._live, self._key, self._tail, self._begun, self._actor = live, key, tail, begun, actor
        self._members: dict[Subscriber, _Joined] = {}
        self._waiting: deque[Any] = deque()
        self._told = self._sent = 0
        """How many events the tail has told, and how many of them were offered to the members."""
        self._cursor = ""
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._members)

    def join(self, member: Subscriber, cursor: str) -> None:
        """A subscriber that has everything the tail has told."""
        self._members[member] = _Joined(self._told, cursor)

    def leave(self, member: Subscriber) -> None:
        """With the last one the group ends."""
        self._members.pop(member, None)
        if not self._members:
            self._tail.leave(self)
            if self._task is not None:
                self._task.cancel()
            self._live.dissolve(self._key)

    def take(self, events: Sequence[Any]) -> None:
        self._told += len(events)
        self._waiting.extend(events)
        if len(self._waiting) > MOST_WAITING:
            for member, joined in list(self._members.items()):
                self._let_fall_behind(member, joined)
        elif self._task is None:
            self._task = asyncio.create_task(self._work())

    def fail(self, error: Exception) -> None:
        for member in list(self._members):
            member.fail(error)

    async def _work(self) -> None:
        try:
            while self._waiting:
                events = list(self._waiting)
                self._waiting.clear()
                payloads = [
                    (await self._live.execute(self._begun, Context(self._actor, Origin()), event))[0]
                    for event in events
                ]
                self._deliver(payloads, events[-1].cursor)
        except Exception as error:
            self.fail(error)
        finally:
            self._task = None

    def _deliver(self, payloads: Sequence[bytes], cursor: str) -> None:
        whole = Batch(payloads)
        for member, joined in list(self._members.items()):
            has = joined.since - self._sent
            if has <= 0:
                batch = whole
            elif has < len(payloads):
                batch = Batch(payloads[has:])
            else:
                continue
            if member.offer(batch):
                self._live.delivered += len(batch.payloads)
            else:
                self._let_fall_behind(member, joined)
        self._sent += len(payloads)
        self._cursor = cursor

    def _let_fall_behind(self, member: Subscriber, joined: _Joined) -> None:
        self.leave(member)
        member.fall_behind(self._cursor if joined.since < self._sent else joined.cursor)


class _Joined(NamedTuple):
    """How many events had been told when a member joined, and the cursor of its last one."""

    since: int
    cursor: str


class _Source:
    """What a subscription's root field follows."""

    def __init__(
        self, begun: Begun, field: Field, found: StrawberryField, convert: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self._begun, self._field, self._found = begun, field, found
        self._convert = convert

    async def open(self, context: Context, after: str | None) -> tuple[Any, str | None]:
        """The stream, from the given cursor or from where the arguments say, and that cursor. Raises where it may not
        be followed."""
        asked = Asked(context, self._field.name)
        await admit(asked, self._found.metadata["access"].permission)
        try:
            args = self._convert(self._begun.arguments(self._field))
        except GraphQLError as error:
            raise located_error(error, self._field.nodes, [self._field.key]) from None
        if after is not None:
            args["after"] = after
        return self._found.metadata["root"].function(asked, **args), args.get("after")


class _Remembered:
    """Payloads of the last second, up to a number of bytes."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> bytes | None:
        self._drop()
        found = self._known.get(key)
        return None if found is None else found[1]

    def put(self, key: Hashable, payload: bytes) -> None:
        if key not in self._known:
            self._known[key] = (time.monotonic(), payload)
            self._bytes += len(payload)
            self._drop()

    def _drop(self) -> None:
        oldest = time.monotonic() - REMEMBERED_SECONDS
        while self._known:
            key, (at, payload) = next(iter(self._known.items()))
            if at >= oldest and self._bytes <= REMEMBERED_BYTES:
                return
            del self._known[key]
            self._bytes -= len(payload)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of a subscription by its document."""

    common: frozenset[Permission] | None
    """Everybody who may follow it, with these permissions among equal ones, is given the same; None: nobody else is."""
    resumed_by: str | None
    """The variable that is nothing but the place to go on from."""


def _facts(schema: GraphQLSchema, prepared: Prepared, begun: Begun) -> _Facts:
    found: _Facts | None = begun.notes.get("live")
    if found is None:
        look = _Look(schema)
        visit(prepared.document.node, TypeInfoVisitor(look.types, look))
        resumed_by = _after(begun.fields[0].nodes[0])
        if resumed_by is not None and look.variables[resumed_by] > 1:
            resumed_by = None
        found = begun.notes["live"] = _Facts(look.common, resumed_by)
    return found


def _after(node: FieldNode) -> str | None:
    for argument in node.arguments or ():
        if argument.name.value == "after" and isinstance(argument.value, VariableNode):
            return argument.value.name.value
    return None


class _Look(Visitor):
    """Whether fields below the root depend on who asks, and how often variables are used."""

    def __init__(self, schema: GraphQLSchema) -> None:
        super().__init__()
        self._schema = schema
        self.types = TypeInfo(schema)
        self.common: frozenset[Permission] | None = frozenset()
        self.variables: Counter[str] = Counter()

    def enter_variable_definition(self, *_: Any) -> VisitorAction:
        return SKIP

    def enter_variable(self, node: VariableNode, *_: Any) -> None:
        self.variables[node.name.value] += 1

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        parent, name = self.types.get_parent_type(), node.name.value
        if parent is self._schema.subscription_type or name.startswith("__"):
            return
        if self.common is None or parent is None:
            return
        owners = self._schema.get_possible_types(parent) if is_abstract_type(parent) else [parent]
        for owner in owners:
            assert isinstance(owner, GraphQLObjectType)
            needed = _common_with(owner.fields[name])
            self.common = None if self.common is None or needed is None else self.common | needed


def _common_with(field: GraphQLField) -> frozenset[Permission] | None:
    """The permissions with which the field is the same for everybody who sees its parent; None where it is not."""
    found = declared(field)
    if found is None:
        return None
    nested = found.metadata.get("nested")
    if isinstance(nested, Nested):
        if isinstance(nested.common, Permission):
            return frozenset({nested.common})
        return frozenset() if nested.common else None
    resolver = found.base_resolver
    if resolver is None or not (found.is_async or found.arguments or resolver.info_parameter):
        return frozenset()
    return None


def _refused(error: Exception) -> Body:
    if isinstance(error, GraphQLError):
        return {"errors": formatted([error])}
    return failure(error)
