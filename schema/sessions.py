"""Sessions in the graph: types and queries."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import strawberry
from strawberry.scalars import JSON

from core.ids import decode
from core.permissions import Actor, Permission
from models import sessions as models
from resolvers import activity_feed as feeds
from resolvers import annotations as annotation_reads
from resolvers import presence as presence_reads
from resolvers import sessions as reads
from resolvers import sharing as sharing_reads
from resolvers import template_starting as starting_reads
from resolvers.handoffs import open_handoff_of
from resolvers.identity import user_in
from schema.activity_filter import FeedFilter, OldestFirst, feed_by
from schema.annotation_filters import AnnotationsFilter
from schema.connections import After, Connection, First
from schema.fields import (
    Info,
    Node,
    column,
    decode_ids,
    entity,
    enum_type,
    id_column,
    input_type,
    nested,
    object_type,
    query,
)
from schema.scalars import BigInt, Cursor
from schema.session_options import SessionOptions
from schema.sharing import Grant, SessionAccess, ShareLink
from services.sessions.options import load_options
from subscriptions.sessions import event_cursor

if TYPE_CHECKING:
    from schema.activities import Activity
    from schema.annotations import AnnotationThread
    from schema.handoffs import Handoff
    from schema.identity import User
    from schema.mcp_servers import McpServer
    from schema.presence import Participant
    from schema.scores import Score
    from schema.template_starting import SessionServerTools, SessionTemplateUse

LazyUser = Annotated["User", strawberry.lazy("schema.identity")]
LazyActivity = Annotated["Activity", strawberry.lazy("schema.activities")]
LazyParticipant = Annotated["Participant", strawberry.lazy("schema.presence")]
LazyHandoff = Annotated["Handoff", strawberry.lazy("schema.handoffs")]
LazyMcpServer = Annotated["McpServer", strawberry.lazy("schema.mcp_servers")]
LazyAnnotation = Annotated["AnnotationThread", strawberry.lazy("schema.annotations")]
LazyTemplateUse = Annotated["SessionTemplateUse", strawberry.lazy("schema.template_starting")]
LazyServerTools = Annotated["SessionServerTools", strawberry.lazy("schema.template_starting")]
LazyScore = Annotated["Score", strawberry.lazy("schema.scores")]

SessionStatus = enum_type(
    models.SessionStatus,
    {
        "CREATED": "Made, and nothing sent yet.",
        "ACTIVE": "In use: a run is under way, or the next message is awaited.",
        "WAITING": "A run waits for a human's decision on a tool call.",
        "PAUSED": "Takes messages, but starts no runs until it is resumed.",
        "COMPLETED": "Marked as done. Takes no messages until it is resumed.",
        "FAILED": "The last run failed; the next message tries again.",
        "TERMINATED": "Stopped for good.",
        "ARCHIVED": "Put away: listed only on request.",
    },
)
Visibility = enum_type(
    models.Visibility,
    {
        "PRIVATE": "The owner, the organisation's admins, and whom it is shared with.",
        "ORGANIZATION": "Everybody in the organisation may read it.",
    },
)
PermissionMode = enum_type(
    models.PermissionMode,
    {
        "DEFAULT": "Read-only tools run at once; others wait for a decision.",
        "ACCEPT_EDITS": "Like DEFAULT, but edits of the session's files run at once.",
        "PLAN": "Only read-only tools run; others are refused.",
        "DONT_ASK": "Only read-only tools and `allowedTools` run; others are refused without asking.",
        "BYPASS_PERMISSIONS": "Every tool runs at once, but those in `disallowedTools`.",
    },
)
MessageRole = enum_type(models.MessageRole, {"USER": "Somebody who uses the session.", "ASSISTANT": "The agent."})
MessageStatus = enum_type(
    models.MessageStatus,
    {
        "STREAMING": "Being written; `text` is empty until it is complete. `sessionEvents` has it live.",
        "COMPLETE": "All of it is there.",
        "INTERRUPTED": "Cut off: `text` is what had been written.",
    },
)
RunStatus = enum_type(
    models.RunStatus,
    {
        "QUEUED": "Waits for its turn or for a worker.",
        "RUNNING": "A worker executes it.",
        "WAITING": "Waits for decisions on tool calls.",
        "FINISHED": "Done.",
        "INTERRUPTED": "Stopped before its end; `error` or the last event says by what.",
        "FAILED": "Ended by an error.",
    },
)
ToolStatus = enum_type(
    models.ToolStatus,
    {
        "WAITING": "Waits for a decision.",
        "RUNNING": "The tool is at work.",
        "SUCCEEDED": "It gave a result.",
        "FAILED": "It gave an error, or did not answer.",
        "DENIED": "It was not allowed to run.",
        "INTERRUPTED": "It was stopped before it had an answer.",
    },
)
ApprovalStatus = enum_type(
    models.ApprovalStatus,
    {
        "PENDING": "Nobody has decided yet.",
        "APPROVED": "The call was allowed.",
        "DENIED": "The call was refused.",
        "EXPIRED": "Nobody decided in time, which counts as refused.",
        "CANCELLED": "The run ended before anybody decided.",
    },
)


class Order(StrEnum):
    """The direction of a list within its parent."""

    OLDEST_FIRST = "OLDEST_FIRST"
    NEWEST_FIRST = "NEWEST_FIRST"


enum_type(Order, {"OLDEST_FIRST": "As it happened.", "NEWEST_FIRST": "The latest first."})


class SessionOrder(StrEnum):
    """How a list of sessions is ordered."""

    CREATED_NEWEST_FIRST = "CREATED_NEWEST_FIRST"
    CREATED_OLDEST_FIRST = "CREATED_OLDEST_FIRST"
    UPDATED_NEWEST_FIRST = "UPDATED_NEWEST_FIRST"


enum_type(
    SessionOrder,
    {
        "CREATED_NEWEST_FIRST": "By creation, the newest first.",
        "CREATED_OLDEST_FIRST": "By creation, the oldest first.",
        "UPDATED_NEWEST_FIRST": "By the last thing that happened in it, the latest first.",
    },
)
_ORDERS = {
    SessionOrder.CREATED_NEWEST_FIRST: ("created_at", True),
    SessionOrder.CREATED_OLDEST_FIRST: ("created_at", False),
    SessionOrder.UPDATED_NEWEST_FIRST: ("updated_at", True),
}
OrderBy = Annotated[Order, strawberry.argument(description="In which direction.")]


@object_type
class Label:
    """A name and a value that a session is found by."""

    name: str = strawberry.field(description="Like `team` or `app.example/tier`.")
    value: str = strawberry.field(description="Up to 200 characters.")


@object_type
class Usage:
    """What the models used. Fields are null where the provider does not say: nothing is guessed."""

    input_tokens: BigInt | None = column("Tokens read by the model, without those from the cache.")
    output_tokens: BigInt | None = column("Tokens written by the model.")
    cache_read_tokens: BigInt | None = column("Tokens read from the provider's prompt cache.")
    cache_write_tokens: BigInt | None = column("Tokens written to the provider's prompt cache.")
    requests: int = column("Requests to the model.", name="request_count")
    cost_usd: Decimal | None = column("Cost in US dollars; null where it is not known, as for scripts.")
    cost_source: str | None = column("Where the cost comes from: `provider` or `price_table`.")


@object_type
class RunError:
    """Why a run did not finish."""

    code: str = column("Machine-readable: WORKER_LOST, MODEL_ERROR, RATE_LIMITED, MAX_TURNS, …", name="error_code")
    message: str | None = column("For people, with what to do about it.", name="error_message")


@entity(models.ApprovalRow)
class Approval(Node):
    """A tool call that waits, or waited, for a human's decision."""

    status: ApprovalStatus = column("What became of it.")
    reason: str | None = column("Why a decision is asked for.")
    note: str | None = column("What the decider said about it.")
    arguments: JSON | None = column("The arguments as the decider edited them; null where they did not.")
    created_at: datetime = column("When the decision was asked for.")
    expires_at: datetime = column("When it counts as refused.")
    decided_at: datetime | None = column("When it was decided.")

    @nested(user_in("assigned_to_id"), common=Permission.MEMBERS_READ)
    def assigned_to(self) -> LazyUser | None:
        """Whose it is to decide: the session's owner. Others who may write in the session can decide it, too."""

    @nested(user_in("decided_by_id"), common=Permission.MEMBERS_READ)
    def decided_by(self) -> LazyUser | None:
        """Who decided."""

    @nested(reads.tool_execution_of, common=True)
    def tool_execution(self) -> ToolExecution:
        """The call in question."""

    @nested(reads.run_of, common=True)
    def run(self) -> Run:
        """The run that waits."""

    @nested(reads.session_of, common=True)
    def session(self) -> Session:
        """The session it belongs to."""


@entity(models.ToolExecutionRow)
class ToolExecution(Node):
    """One call of a tool: what was asked, whether it was allowed, what came back."""

    tool: str = column("`server.tool`, or the name of a built-in tool.")
    call_id: str = column("The call's id in the conversation with the model.")
    parent_call_id: str | None = column("The subagent's call that this call belongs to.")
    arguments: JSON = column("What the tool was called with.")
    status: ToolStatus = column("Where it is.")
    truncated: bool = column("Whether the result was cut because of its size.")
    error_kind: str | None = column("tool, timeout, server_died, protocol, cancelled or too_large.")
    error_message: str | None = column("What went wrong.")
    seq: BigInt = column("The number of the event that began it: its place in the session.")
    created_at: datetime = column("When it was asked for.")
    started_at: datetime | None = column("When it began to run.")
    ended_at: datetime | None = column("When it ended.")
    duration_ms: int | None = column("How long it ran, in milliseconds.")

    @nested(reads.result_of_tools("result"), common=True)
    def result(self) -> JSON | None:
        """MCP content blocks: `[{type: "text", text: …}]`."""

    @nested(reads.result_of_tools("structured_result"), common=True)
    def structured_result(self) -> JSON | None:
        """The structured result, where the tool gives one."""

    @nested(reads.approval_of_tool, common=True)
    def approval(self) -> Approval | None:
        """The decision it waited for; null where none was needed."""

    @nested(annotation_reads.threads_of_tools)
    def annotations(
        self, first: First = None, after: After = None, filter: AnnotationsFilter = None
    ) -> Connection[LazyAnnotation]:
        """What is said about it or its result."""

    @nested(annotation_reads.scores_of_tools)
    def scores(self, first: First = None, after: After = None) -> Connection[LazyScore]:
        """How it was judged, the oldest first."""

    @nested(reads.run_of, common=True)
    def run(self) -> Run:
        """The run it belongs to."""

    @nested(reads.session_of, common=True)
    def session(self) -> Session:
        """The session it belongs to."""


@entity(models.MessageRow)
class Message(Node):
    """Something that was said in a session."""

    role: MessageRole = column("Whether a user or the agent said it.")
    status: MessageStatus = column("Whether it is complete.")
    reasoning: bool = column("Whether it is the model's thinking and not its answer.")
    text: str = column("What was said, as Markdown.")
    seq: BigInt = column("The number of the event that began it: its place in the session.")
    created_at: datetime = column("When it was begun.")

    @nested(user_in("author_id"), common=Permission.MEMBERS_READ)
    def author(self) -> LazyUser | None:
        """Who wrote it; null for the agent."""

    @nested(annotation_reads.threads_of_messages)
    def annotations(
        self, first: First = None, after: After = None, filter: AnnotationsFilter = None
    ) -> Connection[LazyAnnotation]:
        """What is said about it, or about ranges of its text."""

    @nested(annotation_reads.counts_of_messages)
    def annotation_count(self) -> int:
        """How many annotations are on it."""

    @nested(annotation_reads.open_counts_of_messages)
    def open_annotation_count(self) -> int:
        """How many of them are open."""

    @nested(annotation_reads.scores_of_messages)
    def scores(self, first: First = None, after: After = None) -> Connection[LazyScore]:
        """How it was judged, the oldest first."""

    @nested(reads.run_of, common=True)
    def run(self) -> Run | None:
        """The run that it started or that wrote it; null in a fork."""

    @nested(reads.session_of, common=True)
    def session(self) -> Session:
        """The session it belongs to."""


@entity(models.RunRow)
class Run(Node):
    """The work that one message started. Runs of a session are executed one after the other."""

    number: int = column("1, 2, …: its place in the session.")
    status: RunStatus = column("Where it is.")
    segment: int = column("Counts the stretches of work between decisions.")
    queued_at: datetime = column("When the message was sent.")
    started_at: datetime | None = column("When a worker began.")
    ended_at: datetime | None = column("When it ended.")

    @strawberry.field(description="Why it did not finish; null where it did, or was stopped by somebody.")
    def error(root: Any) -> RunError | None:
        return root if root["error_code"] else None

    @strawberry.field(description="What the models used in this run.")
    def usage(root: Any) -> Usage:
        return root  # type: ignore[no-any-return]

    @nested(user_in("started_by_id"), common=Permission.MEMBERS_READ)
    def started_by(self) -> LazyUser:
        """Who sent the message."""

    @nested(reads.messages_of_runs, common=True)
    def messages(self, first: First = None, after: After = None) -> Connection[Message]:
        """The message that started it, and what the agent said."""

    @nested(reads.tools_of_runs, common=True)
    def tool_executions(self, first: First = None, after: After = None) -> Connection[ToolExecution]:
        """The calls of tools, as they happened."""

    @nested(reads.approvals_of_runs, common=True)
    def approvals(self, first: First = None, after: After = None) -> Connection[Approval]:
        """The decisions that were asked for."""

    @nested(annotation_reads.scores_of_runs)
    def scores(self, first: First = None, after: After = None) -> Connection[LazyScore]:
        """How it was judged, the oldest first."""

    @nested(reads.session_of, common=True)
    def session(self) -> Session:
        """The session it belongs to."""


@entity(models.SessionRow)
class Session(Node):
    """A conversation of people with an agent that has tools and a working directory."""

    title: str = column("What it is about.")
    status: SessionStatus = column("Where it is in its life.")
    visibility: Visibility = column("Who may read it.")
    runtime: str = column("What drives the agent: `script`, `pydantic_ai` or `claude`.")
    model: str | None = column("The model, as the runtime spells it.")
    system_prompt: str | None = column("What the agent was told first.")
    permission_mode: PermissionMode = column("Which tool calls need a decision.")
    message_count: int = column("How many messages it has.")
    tool_execution_count: int = column("How many calls of tools it has.")
    created_at: datetime = column("When it was made.")
    updated_at: datetime = column("When something last happened in it.")
    archived_at: datetime | None = column("When it was put away.")
    terminated_at: datetime | None = column("When it was stopped for good.")
    forked_at_message_id: strawberry.ID | None = id_column(
        "Message", "The message of `forkedFrom` where it goes on from.", name="forked_at_message_id"
    )
    last_event_cursor: Cursor = column(
        "The place after everything that has happened so far: `sessionEvents(after:)` goes on from there.",
        name="last_event_seq",
        show=event_cursor,
    )

    @strawberry.field(description="What it was started with.")
    def options(root: Any) -> SessionOptions:
        return load_options(root["options"])

    @strawberry.field(description="Names and values it is found by.")
    def labels(root: Any) -> list[Label]:
        return [Label(name=name, value=value) for name, value in sorted(root["labels"].items())]

    @strawberry.field(description="What the models used in all its runs.")
    def usage(root: Any) -> Usage:
        return root  # type: ignore[no-any-return]

    @nested(user_in("owner_id"), common=Permission.MEMBERS_READ)
    def owner(self) -> LazyUser:
        """Whom it belongs to now."""

    @nested(user_in("creator_id"), common=Permission.MEMBERS_READ)
    def creator(self) -> LazyUser:
        """Who made it."""

    @nested(open_handoff_of)
    def open_handoff(self) -> LazyHandoff | None:
        """The offer to take it over that waits for an answer; null where there is none."""

    @nested(reads.fork_source_of)
    def forked_from(self) -> Session | None:
        """The session it was forked from; null where it was not, or where you may not see that one."""

    @nested(reads.servers_of_sessions)
    def mcp_servers(self) -> list[LazyMcpServer]:
        """The MCP servers that its agent may use."""

    @nested(starting_reads.allowed_tools_of_sessions)
    def server_tools(self) -> list[LazyServerTools]:
        """The servers of which its agent may not use all tools."""

    @nested(starting_reads.template_uses_of_sessions)
    def template(self) -> LazyTemplateUse | None:
        """The template that it, or the session that it was forked from, was started from; null for none."""

    @nested(reads.messages_of_sessions, common=True)
    def messages(
        self,
        first: First = None,
        after: After = None,
        newest_first: Annotated[bool, strawberry.argument(description="Begin with the latest.")] = False,
    ) -> Connection[Message]:
        """What was said."""

    @nested(reads.runs_of_sessions, common=True)
    def runs(
        self,
        first: First = None,
        after: After = None,
        newest_first: Annotated[bool, strawberry.argument(description="Begin with the latest.")] = False,
    ) -> Connection[Run]:
        """The work that its messages started."""

    @nested(reads.tools_of_sessions, common=True)
    def tool_executions(
        self,
        first: First = None,
        after: After = None,
        newest_first: Annotated[bool, strawberry.argument(description="Begin with the latest.")] = False,
    ) -> Connection[ToolExecution]:
        """The calls of tools."""

    @nested(reads.approvals_of_sessions, common=True)
    def approvals(self, first: First = None, after: After = None) -> Connection[Approval]:
        """All decisions that were asked for."""

    @nested(reads.pending_approvals_of_sessions, common=True)
    def pending_approvals(self, first: First = None, after: After = None) -> Connection[Approval]:
        """Decisions that are waited for now."""

    @nested(annotation_reads.threads_of_sessions)
    def annotations(
        self, first: First = None, after: After = None, filter: AnnotationsFilter = None
    ) -> Connection[LazyAnnotation]:
        """What is said about it and about what is in it, as it was begun."""

    @nested(annotation_reads.scores_of_sessions)
    def scores(self, first: First = None, after: After = None) -> Connection[LazyScore]:
        """How it and what is in it was judged, the oldest first."""

    @nested(sharing_reads.accesses_to_sessions)
    def access(self) -> SessionAccess:
        """What you may do in it, and why."""

    @nested(sharing_reads.grants_of_sessions)
    def grants(self, first: First = None, after: After = None) -> Connection[Grant]:
        """With whom it is shared now. Who does not manage it sees only what gives access to them."""

    @nested(sharing_reads.links_of_sessions)
    def share_links(self, first: First = None, after: After = None) -> Connection[ShareLink]:
        """The links to it that were not revoked; none for those who do not manage it."""

    @nested(reads.queue_of_sessions, common=True)
    def queue(self, first: First = None, after: After = None) -> Connection[Run]:
        """The runs that wait for their turn or for a worker, in the order in which they will be executed."""

    @nested(presence_reads.participants_of_sessions)
    def participants(self) -> list[LazyParticipant]:
        """Who is in it now, those who came first at first. The subscription `workspace` keeps you told."""

    @nested(feed_by(feeds.feed_of_sessions))
    def activity(
        self, first: First = None, after: After = None, filter: FeedFilter = None, oldest_first: OldestFirst = False
    ) -> Connection[LazyActivity]:
        """Who did what in it, the latest first."""


@input_type
class LabelInput:
    """A label."""

    name: str = strawberry.field(description="Lower-case letters, digits, and . _ / - inside.")
    value: str = strawberry.field(description="Up to 200 characters.")


@input_type
class SessionFilter:
    """Which sessions to list. Conditions that are left out take everything; archived ones only on request."""

    status: list[SessionStatus] | None = strawberry.field(default=None, description="In one of these.")
    owner_id: list[strawberry.ID] | None = strawberry.field(default=None, description="Owned by one of these users.")
    title_contains: str | None = strawberry.field(default=None, description="The title has this text, in any case.")
    runtime: str | None = strawberry.field(default=None, description="Driven by this runtime.")
    labels: list[LabelInput] | None = strawberry.field(default=None, description="Has all of these labels.")
    template_id: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Started from one of these templates. Not for live lists."
    )
    template_version_id: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Started from one of these versions of templates."
    )
    created_after: datetime | None = strawberry.field(default=None, description="Made at or after this time.")
    created_before: datetime | None = strawberry.field(default=None, description="Made before this time.")
    shared_with_me: bool = strawberry.field(
        default=False, description="true for those that were shared with you or a team of yours. Not for live lists."
    )

    def checked(self, actor: Actor) -> reads.SessionFilter:
        """What the reads take."""
        return reads.SessionFilter(
            statuses=self.status,
            owner_ids=decode_ids("User", self.owner_id, "filter.ownerId"),
            title_contains=self.title_contains,
            runtime=self.runtime,
            labels={label.name: label.value for label in self.labels} if self.labels else None,
            template_ids=decode_ids("SessionTemplate", self.template_id, "filter.templateId"),
            template_version_ids=decode_ids(
                "SessionTemplateVersion", self.template_version_id, "filter.templateVersionId"
            ),
            created_after=self.created_after,
            created_before=self.created_before,
            shared_with=actor.user_id if self.shared_with_me else None,
        )


Filter = Annotated[SessionFilter | None, strawberry.argument(description="Which ones.")]


@strawberry.type
class SessionQuery:
    @query(Permission.SESSIONS_READ)
    async def session(
        info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id, `ses_…`.")]
    ) -> Session | None:
        """One session; null where there is none that you may see."""
        return await reads.session(info.context.actor, decode("ses", id))

    @query(Permission.SESSIONS_READ)
    async def sessions(
        info: Info,
        first: First = None,
        after: After = None,
        filter: Filter = None,
        order_by: Annotated[
            SessionOrder, strawberry.argument(description="In which order.")
        ] = SessionOrder.CREATED_NEWEST_FIRST,
    ) -> Connection[Session]:
        """The sessions that you may see."""
        order, descending = _ORDERS[order_by]
        wanted = filter.checked(info.context.actor) if filter else reads.SessionFilter()
        return await reads.sessions(
            info.context.actor, wanted, first=first, after=after, order=order, descending=descending
        )

    @query(Permission.SESSIONS_READ)
    async def pending_approvals(info: Info, first: First = None, after: After = None) -> Connection[Approval]:
        """Tool calls that wait for a decision, in all sessions that you may see; the longest waiting first."""
        return await reads.pending_approvals(info.context.actor, first=first, after=after)
