"""Creating, forking, changing and ending sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

from core import db
from core.errors import BadInput, IllegalTransition, NotFound, TooLarge, Unavailable
from core.ids import encode, new_id
from core.permissions import Actor
from models.base import Query
from models.mcp_servers import McpServer
from models.sessions import PermissionMode, Session, SessionPurpose, SessionRow, SessionStatus, Visibility
from models.sharing import AccessLevel
from services import idempotency
from services.parts import parts
from services.runs.endings import interrupt_open_runs
from services.runs.queue import enqueue_next
from services.sessions.messages import add_message, check_message
from services.sessions.options import SessionOptions, check_labels, check_title
from services.sessions.transitions import change_status
from services.sharing.policy import policy_in, visibility_of_new
from services.work import Work, announce_access, write

MOST_SERVERS = 50


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a session is made from. None takes the default of the installation."""

    title: str | None = None
    runtime: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    permission_mode: PermissionMode = PermissionMode.DEFAULT
    options: SessionOptions = SessionOptions()
    visibility: Visibility | None = None
    labels: dict[str, str] | None = None
    mcp_server_ids: Sequence[UUID] = ()
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Origins:
    """What a session has from the template that it is started from."""

    version_id: UUID | None = None
    """None for a test of what is not published."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    purpose: SessionPurpose = SessionPurpose.WORK
    allowed_tools: Mapping[UUID, Sequence[str] | None] = field(default_factory=dict)
    """Of servers, by their ids."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """For the event that says that the session was made."""


@dataclass(frozen=True, slots=True)
class SessionChanges:
    """What to change; None leaves a thing as it is."""

    title: str | None = None
    labels: dict[str, str] | None = None
    visibility: Visibility | None = None
    permission_mode: PermissionMode | None = None
    model: str | None = None
    system_prompt: str | None = None
    options: SessionOptions | None = None
    mcp_server_ids: Sequence[UUID] | None = None


async def create_session(actor: Actor, new: NewSession, *, key: str | None = None) -> SessionRow:
    """Make a session, and send its first message where there is one. Raises BadInput, NotFound, Unavailable."""
    runtime = check_new(new)
    if new.message is not None:
        check_message(new.message)
        parts().runtimes[runtime].validate(new.message)
    async with write(actor, "session.create") as work:
        found = await idempotency.claim(work, "createSession", key, _as_json(new))
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            work.target("Session", found.earlier)
            return await read_in(work, found.earlier)
        row = await insert_session(work, found.result_id, new, runtime)
        if new.message is not None:
            await add_message(work, row, new.message, message_id=new_id())
        make_directory(row["organization_id"], row["id"])
    return await fresh(actor, found.result_id)


def check_new(new: NewSession) -> str:
    """The runtime that a new session will have, where it can have all it asks for. Raises BadInput, Unavailable."""
    _check_texts(new.model, new.system_prompt)
    runtime = runtime_for(new.runtime, new.model)
    _check_extra(runtime, new.options)
    check_title(new.title, default="")
    check_labels(new.labels or {})
    return runtime


async def insert_session(
    work: Work, session_id: UUID, new: NewSession, runtime: str, template: Origins | None = None
) -> SessionRow:
    """The new session, held, with its servers and its first event. `new` has passed `check_new`."""
    actor, title = work.actor, check_title(new.title, default="Untitled session")
    origins = template or Origins()
    await Session.create(
        using_db=work.tx.orm,
        id=session_id,
        organization_id=actor.organization_id,
        creator_id=actor.user_id,
        owner_id=actor.user_id,
        title=title,
        visibility=await visibility_of_new(work, new.visibility),
        runtime=runtime,
        model=new.model or (parts().settings.default_model if runtime != "script" else None),
        system_prompt=new.system_prompt,
        permission_mode=new.permission_mode,
        options=new.options.stored(),
        labels=new.labels or {},
        purpose=origins.purpose,
        template_version_id=origins.version_id,
        template_parameters=None if template is None else dict(template.parameters),
        created_at=work.at,
        updated_at=work.at,
    )
    row = await read_in(work, session_id)
    work.hold_new_session(row)
    work.target("Session", row["id"], row["title"])
    await set_servers(work, row["id"], new.mcp_server_ids, origins.allowed_tools)
    work.changed(after=public(row, new.mcp_server_ids))
    work.emit("CUSTOM", {"title": title, "runtime": runtime} | dict(origins.told), name="quarterdeck.session.created")
    work.session_changed("CREATED")
    return row


async def update_session(actor: Actor, session_id: UUID, changes: SessionChanges) -> SessionRow:
    """Change a session; what runs already goes on with the options it began with.

    Who may read it is for those with ADMIN access, all else for those with WRITE access. Raises Forbidden, BadInput,
    NotFound, TooLarge, and IllegalTransition for a session that is over or put away.
    """
    _check_texts(changes.model, changes.system_prompt)
    async with write(actor, "session.update") as work:
        row = await work.lock_session(session_id)
        _check_may_change(row)
        if changes.visibility is not None and changes.visibility != row["visibility"]:
            work.need(AccessLevel.ADMIN)
            (await policy_in(work)).check_visibility(changes.visibility)
            work.after_commit(lambda: announce_access(row["organization_id"], sessions=[row["id"]]))
        values: dict[str, Any] = {}
        if changes.title is not None:
            values["title"] = check_title(changes.title, default="")
        if changes.labels is not None:
            values["labels"] = check_labels(changes.labels)
        for name in ("visibility", "permission_mode", "model", "system_prompt"):
            if (value := getattr(changes, name)) is not None:
                values[name] = value
        if changes.options is not None:
            _check_extra(row["runtime"], changes.options)
            values["options"] = changes.options.stored()
        if changes.mcp_server_ids is not None:
            # What a template allows of a server holds on for as long as the session uses that server.
            removed = await work.tx.fetch(
                "DELETE FROM session_mcp_servers WHERE session_id = $1 RETURNING mcp_server_id, allowed_tools",
                row["id"],
            )
            allowed = {server["mcp_server_id"]: server["allowed_tools"] for server in removed}
            await set_servers(work, row["id"], changes.mcp_server_ids, allowed)
        if values:
            await Session.filter(id=row["id"]).using_db(work.tx.orm).update(**values, updated_at=work.at)
        work.changed(before={name: row[name] for name in values}, after=dict(values))
        changed = sorted(values) + (["mcp_servers"] if changes.mcp_server_ids is not None else [])
        work.emit("CUSTOM", {"changed": changed}, name="quarterdeck.session.updated")
        work.session_changed("UPDATED")
    return await fresh(actor, session_id)


async def pause_session(actor: Actor, session_id: UUID) -> SessionRow:
    """Start no further runs. A run under way goes on to its end; messages are taken and wait."""
    return await _move(actor, session_id, SessionStatus.PAUSED, "session.pause")


async def resume_session(actor: Actor, session_id: UUID) -> SessionRow:
    """Go on after a pause, completion or archiving; waiting messages are worked on.

    Bringing back what was put away takes ADMIN access, as putting it away does.
    """
    async with write(actor, "session.resume") as work:
        row = await work.lock_session(session_id)
        if row["status"] == SessionStatus.ARCHIVED:
            work.need(AccessLevel.ADMIN)
        waiting = await work.tx.fetchval(
            "SELECT 1 FROM runs WHERE session_id = $1 AND status = 'WAITING' LIMIT 1", row["id"]
        )
        to = SessionStatus.WAITING if waiting else SessionStatus.ACTIVE
        work.changed(before={"status": row["status"]}, after={"status": to})
        await change_status(work, to)
        # The job that found the session paused is used up; a new segment is a new job.
        await work.tx.execute(
            "UPDATE runs SET segment = segment + 1 WHERE session_id = $1 AND status = 'QUEUED'", row["id"]
        )
        work.after_commit(lambda: enqueue_next(row["id"]))
    return await fresh(actor, session_id)


async def complete_session(actor: Actor, session_id: UUID) -> SessionRow:
    """Mark the work as done. Takes no messages until it is resumed."""
    return await _move(actor, session_id, SessionStatus.COMPLETED, "session.complete")


async def terminate_session(actor: Actor, session_id: UUID) -> SessionRow:
    """Stop everything for good: open runs are interrupted, and the session takes no messages any more."""
    async with write(actor, "session.terminate") as work:
        row = await work.lock_session(session_id, needs=AccessLevel.ADMIN)
        work.changed(before={"status": row["status"]}, after={"status": SessionStatus.TERMINATED})
        await change_status(work, SessionStatus.TERMINATED)
        await interrupt_open_runs(work, "The session was terminated.")
    return await fresh(actor, session_id)


async def archive_session(actor: Actor, session_id: UUID) -> SessionRow:
    """Put a session away: it is listed only on request and takes no messages."""
    return await _move(actor, session_id, SessionStatus.ARCHIVED, "session.archive", needs=AccessLevel.ADMIN)


async def _move(
    actor: Actor, session_id: UUID, to: SessionStatus, action: str, *, needs: AccessLevel = AccessLevel.WRITE
) -> SessionRow:
    async with write(actor, action) as work:
        row = await work.lock_session(session_id, needs=needs)
        work.changed(before={"status": row["status"]}, after={"status": to})
        await change_status(work, to)
    return await fresh(actor, session_id)


def session_directory(organization_id: UUID, session_id: UUID) -> Path:
    """A session's own directory: nothing of another session is below it."""
    return parts().settings.workspaces / str(organization_id) / str(session_id)


def make_directory(organization_id: UUID, session_id: UUID) -> None:
    """Make the session's directory; Unavailable where the disk refuses it."""
    try:
        session_directory(organization_id, session_id).mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Unavailable(
            f"The session's working directory cannot be made: {error.strerror}. Free space, or check QUARTERDECK_HOME."
        ) from None


async def set_servers(
    work: Work,
    session_id: UUID,
    server_ids: Sequence[UUID],
    allowed_tools: Mapping[UUID, Sequence[str] | None] = MappingProxyType({}),
) -> None:
    """Give a session these MCP servers, in this order; of those in `allowed_tools` the tools that it says, where it
    says any. NotFound for what is not the organisation's."""
    wanted = list(dict.fromkeys(server_ids))
    if len(wanted) > MOST_SERVERS:
        raise BadInput(f"A session has at most {MOST_SERVERS} MCP servers.", field="mcpServerIds")
    query = Query()
    found = {
        row["id"]
        for row in await work.tx.fetch(
            f"SELECT id FROM mcp_servers WHERE id = ANY({query.arg(wanted)}) AND removed_at IS NULL "
            f"AND {query.scope(McpServer.visible_to(work.actor))}",
            *query.args,
        )
    }
    for id_ in wanted:
        if id_ not in found:
            raise NotFound(f"There is no MCP server {encode('mcp', id_)}.", field="mcpServerIds")
    await work.tx.executemany(
        "INSERT INTO session_mcp_servers (id, session_id, mcp_server_id, position, allowed_tools) "
        "VALUES ($1, $2, $3, $4, $5)",
        [(new_id(), session_id, id_, position, allowed_tools.get(id_)) for position, id_ in enumerate(wanted)],
    )


async def read_in(work: Work, session_id: UUID) -> SessionRow:
    """The session as it now is inside the transaction."""
    row = await work.tx.fetchrow("SELECT * FROM sessions WHERE id = $1", session_id, row=SessionRow)
    assert row is not None
    return row


async def fresh(actor: Actor, session_id: UUID) -> SessionRow:
    """The session as its reader sees it after a write."""
    query = Query()
    row = await db.fetchrow(
        f"SELECT * FROM sessions WHERE id = {query.arg(session_id)} "
        f"AND {query.scope(Session.visible_to(actor), by_row=True)}",
        *query.args,
        row=SessionRow,
    )
    if row is None:
        raise NotFound("The session can no longer be seen by you.")
    return row


def runtime_for(asked: str | None, model: str | None) -> str:
    """The runtime of a session that asks for it, or for none. Raises BadInput, Unavailable."""
    runtimes = parts().runtimes
    name = asked or parts().default_runtime
    if asked is None and model is not None and name == "script":
        name = "pydantic_ai"
    if name not in runtimes:
        raise BadInput(f"There is no runtime {name[:40]!r}; there are {', '.join(sorted(runtimes))}.", field="runtime")
    available, reason = runtimes[name].available()
    if not available:
        raise Unavailable(f"The runtime {name} cannot be used here: {reason}", field="runtime")
    return name


def _check_may_change(row: SessionRow) -> None:
    if row["terminated_at"] is not None or row["status"] == SessionStatus.TERMINATED:
        advice = "It was terminated: fork it, and change the fork."
    elif row["status"] == SessionStatus.ARCHIVED:
        advice = "It is archived: bring it back with resumeSession first."
    else:
        return
    raise IllegalTransition(
        f"This session takes no changes. {advice}", field="sessionId", status=SessionStatus(row["status"]).value
    )


def _check_texts(model: str | None, system_prompt: str | None) -> None:
    if model is not None and not 1 <= len(model) <= 200:
        raise BadInput("A model's name has 1 to 200 characters.", field="model")
    limit = parts().settings.max_message_bytes
    if system_prompt is not None and len(system_prompt.encode()) > limit:
        raise TooLarge(f"A system prompt has at most {limit} bytes.", field="systemPrompt")


def _check_extra(runtime: str, options: SessionOptions) -> None:
    """Raises BadInput for options that the runtime does not know: better than leaving them without effect."""
    if runtime != "claude" and (given := options.for_claude_only()):
        raise BadInput.of_fields(
            [(f"options.{name}", f"Only the runtime claude knows this option, not {runtime}.") for name in given]
        )
    try:
        parts().runtimes[runtime].validate_options(options.runtime_extra())
    except BadInput as error:
        problems = error.details.get("fields", [])
        raise BadInput.of_fields([(f"options.{each['field']}", each["message"]) for each in problems]) from None


def public(row: SessionRow, server_ids: Sequence[UUID]) -> dict[str, Any]:
    """What the audit record of a new session says of it."""
    names = ("title", "runtime", "model", "permission_mode", "visibility", "labels", "options")
    return {name: row[name] for name in names} | {"mcpServers": [encode("mcp", id_) for id_ in server_ids]}


def _as_json(new: NewSession) -> dict[str, Any]:
    return {
        "title": new.title,
        "runtime": new.runtime,
        "model": new.model,
        "system_prompt": new.system_prompt,
        "permission_mode": new.permission_mode,
        "options": new.options.stored(),
        "visibility": new.visibility,
        "labels": new.labels,
        "servers": [str(id_) for id_ in new.mcp_server_ids],
        "message": new.message,
    }
