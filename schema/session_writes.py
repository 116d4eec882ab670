"""Sessions in the graph: mutations and live streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import strawberry
from strawberry.scalars import JSON

from core.errors import BadInput
from core.ids import decode
from core.permissions import Permission
from models.sessions import SessionStatus
from resolvers import sessions as reads
from resolvers.identity import user_in
from schema.actors import ActorKind
from schema.fields import (
    Info,
    column,
    decode_ids,
    enum_type,
    id_column,
    input_type,
    mutation,
    nested,
    object_type,
    query,
    subscription,
)
from schema.scalars import Cursor
from schema.session_options import SessionOptionsInput
from schema.sessions import (
    Approval,
    Filter,
    LabelInput,
    LazyUser,
    Message,
    PermissionMode,
    Run,
    Session,
    ToolExecution,
    Visibility,
)
from services.runs import endings
from services.sessions import approvals, forking, lifecycle, messages
from services.sessions.options import SessionOptions
from subscriptions import session_changes as changes
from subscriptions import sessions as streams

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."


class ApprovalDecision(StrEnum):
    """What to say to a tool call."""

    APPROVE = "APPROVE"
    DENY = "DENY"


enum_type(ApprovalDecision, {"APPROVE": "Let it run.", "DENY": "Refuse it; the agent is told, with your note."})


class SessionEventType(StrEnum):
    """Kinds of events, named as in AG-UI 1.0."""

    RUN_STARTED = "RUN_STARTED"
    RUN_FINISHED = "RUN_FINISHED"
    RUN_ERROR = "RUN_ERROR"
    STEP_STARTED = "STEP_STARTED"
    TEXT_MESSAGE_START = "TEXT_MESSAGE_START"
    TEXT_MESSAGE_CONTENT = "TEXT_MESSAGE_CONTENT"
    TEXT_MESSAGE_END = "TEXT_MESSAGE_END"
    TOOL_CALL_START = "TOOL_CALL_START"
    TOOL_CALL_ARGS = "TOOL_CALL_ARGS"
    TOOL_CALL_END = "TOOL_CALL_END"
    TOOL_CALL_RESULT = "TOOL_CALL_RESULT"
    CUSTOM = "CUSTOM"


enum_type(
    SessionEventType,
    {
        "RUN_STARTED": "A worker began a run, or went on with it after a decision.",
        "RUN_FINISHED": "A run, or a stretch of it, ended; `data.outcome` is success, interrupt (waits for decisions) "
        "or cancelled.",
        "RUN_ERROR": "A run ended by an error; `data.code` and `data.message` say which.",
        "STEP_STARTED": "A step of a playbook, or a turn of the model, began.",
        "TEXT_MESSAGE_START": "The agent began a message.",
        "TEXT_MESSAGE_CONTENT": "More of its text: `delta`, which begins at character `offset` of the message.",
        "TEXT_MESSAGE_END": "The message is complete; `data.text` is all of it.",
        "TOOL_CALL_START": "The agent asked for a tool.",
        "TOOL_CALL_ARGS": "The call's arguments, as JSON text in `data.delta`.",
        "TOOL_CALL_END": "The call is described in full.",
        "TOOL_CALL_RESULT": "What the tool gave back, or why it did not run.",
        "CUSTOM": "A fact of Quarterdeck's own; `name` says which, as `quarterdeck.approval.requested`.",
    },
)


class SessionChangeKind(StrEnum):
    """What happened to a session."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    REMOVED = "REMOVED"


enum_type(
    SessionChangeKind,
    {
        "CREATED": "It was made.",
        "UPDATED": "It changed, or something happened in it.",
        "REMOVED": "It changed, and the filter does not take it (any more), or you may not see it any more: drop it "
        "from your list if it is there.",
    },
)


@input_type
class CreateSessionInput:
    """A new session. Everything may be left out."""

    title: str | None = strawberry.field(default=None, description="What it is about.")
    runtime: str | None = strawberry.field(
        default=None, description="`script`, `pydantic_ai` or `claude`; left out, the one that is configured."
    )
    model: str | None = strawberry.field(
        default=None, description="The model, as the runtime spells it: `anthropic:claude-…`."
    )
    system_prompt: str | None = strawberry.field(default=None, description="What the agent is told first.")
    permission_mode: PermissionMode = strawberry.field(
        default=PermissionMode.DEFAULT, description="Which tool calls need a decision."
    )
    options: SessionOptionsInput | None = strawberry.field(default=None, description="Further options.")
    mcp_server_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="MCP servers that the agent may use."
    )
    labels: list[LabelInput] = strawberry.field(default_factory=list, description="Names and values to find it by.")
    visibility: Visibility | None = strawberry.field(
        default=None, description="Who may read it; left out, what the organisation's sharing policy says."
    )
    message: str | None = strawberry.field(default=None, description="A first message to send at once.")
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class UpdateSessionInput:
    """Changes of a session; what is left out stays. A run under way goes on with the options it began with."""

    session_id: strawberry.ID = strawberry.field(description="The session.")
    title: str | None = strawberry.field(default=None, description="What it is about.")
    labels: list[LabelInput] | None = strawberry.field(default=None, description="Replaces all labels.")
    visibility: Visibility | None = strawberry.field(
        default=None, description="Who may read it. Takes ADMIN access; all else takes WRITE."
    )
    permission_mode: PermissionMode | None = strawberry.field(default=None, description="Which calls need a decision.")
    model: str | None = strawberry.field(default=None, description="The model of the next runs.")
    system_prompt: str | None = strawberry.field(default=None, description="What the agent is told first.")
    options: SessionOptionsInput | None = strawberry.field(default=None, description="Replaces all further options.")
    mcp_server_ids: list[strawberry.ID] | None = strawberry.field(default=None, description="Replaces all MCP servers.")


@input_type
class ForkSessionInput:
    """A fork: a session of your own that goes on from a message of another one."""

    session_id: strawberry.ID = strawberry.field(description="The session to fork.")
    message_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="Where to go on from. At an agent's message the whole turn is kept; a user's message is answered "
        "anew. Left out, all turns that have ended are kept.",
    )
    title: str | None = strawberry.field(default=None, description="Title of the fork.")
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class SendMessageInput:
    """A message to the agent."""

    session_id: strawberry.ID = strawberry.field(description="The session.")
    text: str = strawberry.field(
        description="What to say. For the script runtime: `/tool NAME {json}`, or a playbook in YAML."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class DecideApprovalInput:
    """A decision on a tool call."""

    approval_id: strawberry.ID = strawberry.field(description="The approval.")
    decision: ApprovalDecision = strawberry.field(description="What to say to the call.")
    note: str | None = strawberry.field(default=None, description="Why; the agent reads it. Up to 2,000 characters.")
    arguments: JSON | None = strawberry.field(
        default=None, description="With APPROVE: run the tool with these arguments instead, an object."
    )


@input_type
class InterruptRunInput:
    """A run to stop."""

    run_id: strawberry.ID = strawberry.field(description="The run.")


@input_type
class SessionInput:
    """A session."""

    session_id: strawberry.ID = strawberry.field(description="The session.")


@object_type
class SessionPayload:
    """The session as it now is."""

    session: Session = strawberry.field(description="The session.")


@object_type
class SendMessagePayload:
    """What was sent."""

    message: Message = strawberry.field(description="The message.")

    @nested(lambda actor, parents, args: reads.run_of(actor, [parent.message for parent in parents], args))
    def run(self) -> Run:
        """The run that answers it."""

    @nested(lambda actor, parents, args: reads.session_of(actor, [parent.message for parent in parents], args))
    def session(self) -> Session:
        """The session it was sent to."""


@object_type
class DecideApprovalPayload:
    """What was decided."""

    approval: Approval = strawberry.field(description="The approval.")


@object_type
class InterruptRunPayload:
    """The run that stops."""

    run: Run = strawberry.field(description="The run. RUNNING where its worker still has to stop it.")


@object_type
class SessionEvent:
    """Something that happened in a session. Numbers have no gaps; text in progress goes between them."""

    cursor: Cursor = column("Pass the last one as `after` to go on from there.")
    seq: int = column("The event's number. Text in progress has the number of the event before it.")
    type: SessionEventType = column("What kind of event.")
    name: str | None = column("Which fact, for CUSTOM: `quarterdeck.message.sent`, `quarterdeck.approval.requested`, …")
    at: datetime = column("When.")
    delta: str | None = column("More text, for TEXT_MESSAGE_CONTENT.")
    offset: int | None = column("Where `delta` begins in its message, in characters.")
    data: JSON = column("The event's body as AG-UI has it.")
    actor_kind: ActorKind = column("What did it.")

    @nested(user_in("actor_id"), common=Permission.MEMBERS_READ)
    def actor(self) -> LazyUser | None:
        """Who did it; for an agent, in whose name it acts."""

    @nested(reads.session_of, common=True)
    def session(self) -> Session:
        """The session, as it now is."""

    @nested(reads.run_of, common=True)
    def run(self) -> Run | None:
        """The run it belongs to."""

    @nested(reads.message_of, common=True)
    def message(self) -> Message | None:
        """The message it is about."""

    @nested(reads.tool_execution_of, common=True)
    def tool_execution(self) -> ToolExecution | None:
        """The tool call it is about."""

    @nested(reads.approval_of, common=True)
    def approval(self) -> Approval | None:
        """The approval it is about."""


@object_type
class SessionChange:
    """A change in the list of sessions that you may see."""

    cursor: Cursor = column("Pass the last one as `after` to go on from there.")
    kind: SessionChangeKind = column("What happened.")
    at: datetime = column("When.")
    session_id: strawberry.ID = id_column("Session", "Which session.", name="session_id")
    session: Session | None = column("The session, as it now is; null where you may not see it any more.")


@strawberry.type
class SessionLiveQuery:
    @query(Permission.SESSIONS_READ)
    async def session_changes_cursor(info: Info) -> Cursor:
        """The place to follow a list from: read this, then the list, then `sessionChanges(after:)`, and you miss
        nothing."""
        return Cursor(await changes.current_cursor(info.context.actor))


@strawberry.type
class SessionMutation:
    @mutation(Permission.SESSIONS_WRITE)
    async def create_session(info: Info, input: CreateSessionInput) -> SessionPayload:
        """Make a session of your own."""
        new = lifecycle.NewSession(
            title=input.title,
            runtime=input.runtime,
            model=input.model,
            system_prompt=input.system_prompt,
            permission_mode=input.permission_mode,
            options=input.options.checked() if input.options else SessionOptions(),
            visibility=input.visibility,
            labels=_labels(input.labels),
            mcp_server_ids=decode_ids("McpServer", input.mcp_server_ids, "mcpServerIds") or (),
            message=input.message,
        )
        return _session(await lifecycle.create_session(info.context.actor, new, key=input.idempotency_key))

    @mutation(Permission.SESSIONS_WRITE)
    async def update_session(info: Info, input: UpdateSessionInput) -> SessionPayload:
        """Change a session's title, labels, visibility, options or servers."""
        wanted = lifecycle.SessionChanges(
            title=input.title,
            labels=None if input.labels is None else _labels(input.labels),
            visibility=input.visibility,
            permission_mode=input.permission_mode,
            model=input.model,
            system_prompt=input.system_prompt,
            options=input.options.checked() if input.options else None,
            mcp_server_ids=decode_ids("McpServer", input.mcp_server_ids, "mcpServerIds"),
        )
        return _session(await lifecycle.update_session(info.context.actor, _id(input), wanted))

    @mutation(Permission.SESSIONS_WRITE)
    async def fork_session(info: Info, input: ForkSessionInput) -> SessionPayload:
        """Go on from a message of a session that you may see, in a session of your own."""
        return _session(
            await forking.fork_session(
                info.context.actor,
                _id(input),
                message_id=decode("msg", input.message_id, field="messageId") if input.message_id else None,
                title=input.title,
                key=input.idempotency_key,
            )
        )

    @mutation(Permission.SESSIONS_WRITE)
    async def send_message(info: Info, input: SendMessageInput) -> SendMessagePayload:
        """Say something to the agent. The answer comes as events: see `sessionEvents`."""
        row = await messages.send_message(info.context.actor, _id(input), input.text, key=input.idempotency_key)
        return SendMessagePayload(message=row)

    @mutation(Permission.SESSIONS_WRITE)
    async def interrupt_run(info: Info, input: InterruptRunInput) -> InterruptRunPayload:
        """Stop a run: at once where it waits, within about a second where a worker executes it."""
        row = await endings.interrupt_run(info.context.actor, decode("run", input.run_id, field="runId"))
        return InterruptRunPayload(run=row)

    @mutation(Permission.SESSIONS_WRITE)
    async def decide_approval(info: Info, input: DecideApprovalInput) -> DecideApprovalPayload:
        """Allow or refuse a tool call. The second to decide is told who was first."""
        row = await approvals.decide_approval(
            info.context.actor,
            decode("apr", input.approval_id, field="approvalId"),
            approve=input.decision is ApprovalDecision.APPROVE,
            note=input.note,
            arguments=_object(input.arguments, "arguments"),
        )
        return DecideApprovalPayload(approval=row)

    @mutation(Permission.SESSIONS_WRITE)
    async def pause_session(info: Info, input: SessionInput) -> SessionPayload:
        """Start no further runs until `resumeSession`. A run under way goes on to its end."""
        return _session(await lifecycle.pause_session(info.context.actor, _id(input)))

    @mutation(Permission.SESSIONS_WRITE)
    async def resume_session(info: Info, input: SessionInput) -> SessionPayload:
        """Go on with a session that is paused, completed or archived."""
        return _session(await lifecycle.resume_session(info.context.actor, _id(input)))

    @mutation(Permission.SESSIONS_WRITE)
    async def complete_session(info: Info, input: SessionInput) -> SessionPayload:
        """Mark a session's work as done."""
        return _session(await lifecycle.complete_session(info.context.actor, _id(input)))

    @mutation(Permission.SESSIONS_WRITE)
    async def terminate_session(info: Info, input: SessionInput) -> SessionPayload:
        """Stop a session for good, with all that is under way in it."""
        return _session(await lifecycle.terminate_session(info.context.actor, _id(input)))

    @mutation(Permission.SESSIONS_WRITE)
    async def archive_session(info: Info, input: SessionInput) -> SessionPayload:
        """Put a session away. `resumeSession` brings it back."""
        return _session(await lifecycle.archive_session(info.context.actor, _id(input)))


@strawberry.type
class SessionSubscription:
    @subscription(Permission.SESSIONS_READ)
    def session_events(
        info: Info,
        session_id: Annotated[strawberry.ID, strawberry.argument(description="The session.")],
        after: Annotated[
            Cursor | None,
            strawberry.argument(
                description="Go on after this event's cursor. Left out, from the session's first event."
            ),
        ] = None,
    ) -> AsyncGenerator[SessionEvent, None]:
        """Everything that happens in a session, as it happens. Reconnect with the last cursor, and nothing is lost or
        repeated."""
        return streams.SessionEvents(info.context.actor, decode("ses", session_id, field="sessionId"), after)

    @subscription(Permission.SESSIONS_READ)
    async def session_changes(
        info: Info,
        filter: Filter = None,
        after: Annotated[
            Cursor | None, strawberry.argument(description="Go on after this cursor. Left out, from now on.")
        ] = None,
    ) -> AsyncGenerator[SessionChange, None]:
        """Sessions that are made or changed, as far as you may see them: keeps a list live."""
        actor = info.context.actor
        if filter and filter.shared_with_me:
            # A grant is no change of the session's row, by which live lists go.
            raise BadInput("Live lists cannot be filtered by sharedWithMe.", field="filter.sharedWithMe")
        if filter and filter.template_id is not None:
            raise BadInput(
                "Live lists cannot be filtered by templateId: name the versions in templateVersionId.",
                field="filter.templateId",
            )
        wanted = filter.checked(actor) if filter else replace(reads.SessionFilter(), statuses=list(_ALL))
        async for change in changes.session_changes(actor, wanted.matches, after):
            yield change


_ALL = tuple(SessionStatus)


def _session(row: Any) -> SessionPayload:
    return SessionPayload(session=row)


def _id(input: Any) -> Any:
    return decode("ses", input.session_id, field="sessionId")


def _labels(labels: list[LabelInput]) -> dict[str, str]:
    return {label.name: label.value for label in labels}


def _object(value: Any, field: str) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise BadInput("This is not a JSON object.", field=field)
    return value
