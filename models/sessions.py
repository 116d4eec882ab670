"""Sessions and all that happens in them: messages, runs, tool executions, approvals."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor
from models.base import JsonField, Row, Scope, TextArrayField
from models.sharing import GRANTED_SESSIONS, OPEN_TO_ORGANIZATION
from models.templates import SessionTemplate, TemplateLevel


class SessionStatus(StrEnum):
    """Where a session is in its life. services/sessions/transitions.py has the rules between them."""

    CREATED = "CREATED"
    ACTIVE = "ACTIVE"
    WAITING = "WAITING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TERMINATED = "TERMINATED"
    ARCHIVED = "ARCHIVED"


class Visibility(StrEnum):
    """Who, besides its owner and the admins, may see a session."""

    PRIVATE = "PRIVATE"
    ORGANIZATION = "ORGANIZATION"


class SessionPurpose(StrEnum):
    """What a session is for: lists show those of work."""

    WORK = "WORK"
    TEMPLATE_TEST = "TEMPLATE_TEST"


OF_WORK = f"sessions.purpose = '{SessionPurpose.WORK.value}'"
"""The condition on rows of sessions that are in lists, feeds and reports."""
OF_NO_WORK = f"sessions.purpose <> '{SessionPurpose.WORK.value}'"
"""The condition on the others, in the words of their index."""


class PermissionMode(StrEnum):
    """Which tool calls need a human's decision (the modes of the Claude Agent SDK)."""

    DEFAULT = "DEFAULT"
    ACCEPT_EDITS = "ACCEPT_EDITS"
    PLAN = "PLAN"
    DONT_ASK = "DONT_ASK"
    BYPASS_PERMISSIONS = "BYPASS_PERMISSIONS"


class MessageRole(StrEnum):
    """Who wrote a message."""

    USER = "USER"
    ASSISTANT = "ASSISTANT"


class MessageStatus(StrEnum):
    """Whether a message's text is complete."""

    STREAMING = "STREAMING"
    COMPLETE = "COMPLETE"
    INTERRUPTED = "INTERRUPTED"


class RunStatus(StrEnum):
    """Where a run is: the work that one message started."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    FINISHED = "FINISHED"
    INTERRUPTED = "INTERRUPTED"
    FAILED = "FAILED"


class ToolStatus(StrEnum):
    """Where a tool execution is."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    DENIED = "DENIED"
    INTERRUPTED = "INTERRUPTED"


class ApprovalStatus(StrEnum):
    """What became of a request for a decision."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    DENIED = "DENIED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


class SessionRow(Row):
    __slots__ = ()


class MessageRow(Row):
    __slots__ = ()


class RunRow(Row):
    __slots__ = ()


class ToolExecutionRow(Row):
    __slots__ = ()


class ApprovalRow(Row):
    __slots__ = ()


class Session(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    creator: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    owner: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    title = fields.CharField(200)
    status = fields.CharEnumField(SessionStatus, max_length=20, default=SessionStatus.CREATED)
    visibility = fields.CharEnumField(Visibility, max_length=20, default=Visibility.PRIVATE)
    runtime = fields.CharField(40)
    model = fields.CharField(200, null=True)
    system_prompt = fields.TextField(null=True)
    permission_mode = fields.CharEnumField(PermissionMode, max_length=20, default=PermissionMode.DEFAULT)
    options = JsonField(default=dict)
    """The rest of the options, in the shape of services.sessions.options.SessionOptions."""
    labels = JsonField(default=dict)
    forked_from: Any = fields.ForeignKeyField(
        "models.Session", related_name=False, null=True, on_delete=fields.SET_NULL
    )
    forked_at_message_id = fields.UUIDField(null=True)
    last_event_seq = fields.BigIntField(default=0)
    message_count = fields.IntField(default=0)
    tool_execution_count = fields.IntField(default=0)
    input_tokens = fields.BigIntField(null=True)
    output_tokens = fields.BigIntField(null=True)
    cache_read_tokens = fields.BigIntField(null=True)
    cache_write_tokens = fields.BigIntField(null=True)
    request_count = fields.IntField(default=0)
    cost_usd = fields.DecimalField(18, 9, null=True)
    cost_source = fields.CharField(20, null=True)
    purpose = fields.CharEnumField(
        SessionPurpose, max_length=20, default=SessionPurpose.WORK, db_default=SessionPurpose.WORK.value
    )
    template_version: Any = fields.ForeignKeyField(
        "models.SessionTemplateVersion", related_name=False, null=True, on_delete=fields.SET_NULL
    )
    """What it was started from: it stays with this version, whatever is published later."""
    template_parameters = JsonField(null=True)
    """The values it was started with; a secret is the name of an environment variable."""
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now_add=True)
    archived_at = fields.DatetimeField(null=True)
    terminated_at = fields.DatetimeField(null=True)
    """Set for good: what was terminated stays so, whatever its status becomes."""

    class Meta:
        table = "sessions"
        indexes = [
            ("organization_id", "created_at", "id"),
            ("organization_id", "updated_at", "id"),
            ("owner_id", "created_at", "id"),
        ]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Admins see their organisation's sessions; others their own, those open to the organisation, and those that
        they or their teams have been given access to.

        Sessions of tests are in no list. They are reached by id, also by those who may edit the template.

        A union of indexed branches: `OR` would scan (20 times slower at 200,000 sessions).
        """
        if actor.is_admin:
            return Scope(
                f"sessions.organization_id = {{}} AND {OF_WORK}",
                (actor.organization_id,),
                by_row="sessions.organization_id = {}",
            )
        seen = (
            "SELECT own.id FROM sessions own WHERE own.owner_id = {} "
            f"UNION ALL {OPEN_TO_ORGANIZATION} UNION ALL {GRANTED_SESSIONS}"
        )
        organization, user = actor.organization_id, actor.user_id
        args = (organization, user, organization, organization, user, user)
        tests = _of_editable_templates(actor)
        return Scope(
            f"sessions.organization_id = {{}} AND {OF_WORK} AND sessions.id IN ({seen})",
            args,
            # With a limit it stays a question of one row, which goes into each branch as an index condition.
            by_row="sessions.organization_id = {} AND "
            f"(SELECT true FROM ({seen} UNION ALL {tests.condition}) AS seen (id) WHERE seen.id = sessions.id LIMIT 1)",
            by_row_args=(*args, *tests.args),
        )


class SessionMcpServer(Model):
    """A server a session uses; `allowed_tools` null means all of its tools."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    mcp_server: Any = fields.ForeignKeyField("models.McpServer", related_name=False, on_delete=fields.RESTRICT)
    position = fields.IntField(default=0)
    allowed_tools = TextArrayField(null=True)
    """By the server's own names of them."""

    class Meta:
        table = "session_mcp_servers"
        unique_together = (("session_id", "mcp_server_id"),)
        indexes = [("mcp_server_id",)]


class Run(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    number = fields.IntField()
    """1, 2, … within the session: the order in which runs are executed."""
    status = fields.CharEnumField(RunStatus, max_length=20, default=RunStatus.QUEUED)
    segment = fields.IntField(default=1)
    """Counts the stretches of work between decisions; with the id it names one queued job."""
    started_by: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    model = fields.CharField(200, null=True)
    """The session's when the run's last segment began: what it did is counted under this model."""
    executor = fields.CharField(100, null=True)
    """The worker that holds the run; its writes are refused once another value stands here."""
    interrupt_requested_at = fields.DatetimeField(null=True)
    queued_at = fields.DatetimeField(auto_now_add=True)
    started_at = fields.DatetimeField(null=True)
    ended_at = fields.DatetimeField(null=True)
    error_code = fields.CharField(60, null=True)
    error_message = fields.TextField(null=True)
    input_tokens = fields.BigIntField(null=True)
    output_tokens = fields.BigIntField(null=True)
    cache_read_tokens = fields.BigIntField(null=True)
    cache_write_tokens = fields.BigIntField(null=True)
    request_count = fields.IntField(default=0)
    cost_usd = fields.DecimalField(18, 9, null=True)
    cost_source = fields.CharField(20, null=True)

    class Meta:
        table = "runs"
        unique_together = (("session_id", "number"),)


class Message(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    run: Any = fields.ForeignKeyField("models.Run", related_name=False, null=True, on_delete=fields.SET_NULL)
    seq = fields.BigIntField()
    """The session's event that began the message: its place in the conversation."""
    role = fields.CharEnumField(MessageRole, max_length=20)
    status = fields.CharEnumField(MessageStatus, max_length=20, default=MessageStatus.COMPLETE)
    reasoning = fields.BooleanField(default=False)
    author: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    text = fields.TextField()
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "messages"
        unique_together = (("session_id", "seq"),)
        indexes = [("run_id", "seq")]


class ToolExecution(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    run: Any = fields.ForeignKeyField("models.Run", related_name=False, on_delete=fields.CASCADE)
    seq = fields.BigIntField()
    call_id = fields.CharField(200)
    parent_call_id = fields.CharField(200, null=True)
    tool = fields.CharField(200)
    arguments = JsonField(default=dict)
    status = fields.CharEnumField(ToolStatus, max_length=20)
    result = JsonField(null=True)
    """MCP content blocks."""
    structured_result = JsonField(null=True)
    truncated = fields.BooleanField(default=False)
    error_kind = fields.CharField(40, null=True)
    error_message = fields.TextField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    started_at = fields.DatetimeField(null=True)
    ended_at = fields.DatetimeField(null=True)
    duration_ms = fields.IntField(null=True)

    class Meta:
        table = "tool_executions"
        unique_together = (("session_id", "seq"), ("run_id", "call_id"))


class Approval(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    run: Any = fields.ForeignKeyField("models.Run", related_name=False, on_delete=fields.CASCADE)
    tool_execution: Any = fields.ForeignKeyField("models.ToolExecution", related_name=False, on_delete=fields.CASCADE)
    seq = fields.BigIntField()
    status = fields.CharEnumField(ApprovalStatus, max_length=20, default=ApprovalStatus.PENDING)
    reason = fields.TextField(null=True)
    """Why a decision is asked for."""
    assigned_to: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.SET_NULL)
    """Whose it is to decide: the session's owner. Others who may write in the session can, too."""
    decided_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    decided_at = fields.DatetimeField(null=True)
    note = fields.TextField(null=True)
    arguments = JsonField(null=True)
    """What the decider made of the arguments, where they were edited."""
    created_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField()

    class Meta:
        table = "approvals"
        indexes = [
            ("session_id", "seq"),
            ("run_id",),
            ("tool_execution_id",),
            ("organization_id", "status", "created_at"),
        ]


class RuntimeStateRecord(Model):
    """What a session's runtime goes on from; one per session, replaced after each segment."""

    session_id = fields.UUIDField(primary_key=True)
    """Its foreign key is in the migrations: Tortoise's state of a one-to-one primary key never settles."""
    runtime = fields.CharField(40)
    version = fields.IntField()
    payload = fields.BinaryField()
    run_id = fields.UUIDField(null=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "runtime_states"


class SessionSeed(Model):
    """What has to be put into a session's working directory before its next run; removed once it is there."""

    session_id = fields.UUIDField(primary_key=True)
    """Its foreign key is in the migrations, as that of RuntimeStateRecord."""
    seed = JsonField(default=dict)
    """In the shape of services.templates.spec.Seed."""

    class Meta:
        table = "session_seeds"


def in_visible_session(table: str, actor: Actor) -> Scope:
    """The scope of rows that belong to a session: they are as visible as it is."""
    sessions = Session.visible_to(actor)
    return Scope(
        f"{table}.session_id IN (SELECT sessions.id FROM sessions WHERE {sessions.condition})",
        sessions.args,
        by_row=f"(SELECT true FROM sessions WHERE sessions.id = {table}.session_id AND {sessions.by_row})",
        by_row_args=sessions.by_row_args,
    )


def _of_editable_templates(actor: Actor) -> Scope:
    """The ids of sessions in which those templates are tested that the actor may edit."""
    templates = SessionTemplate.visible_to(actor, TemplateLevel.EDIT)
    return Scope(
        "SELECT template_tests.session_id FROM template_tests "
        "JOIN session_templates ON session_templates.id = template_tests.template_id "
        f"WHERE {templates.by_row or templates.condition}",
        templates.args,
    )
