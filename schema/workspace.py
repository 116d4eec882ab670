"""The files of a session in the graph."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, Any

import strawberry

from core.ids import decode
from core.permissions import Permission
from schema.connections import After, Connection, First
from schema.fields import Info, column, enum_type, object_type, query
from schema.scalars import BigInt
from services import workspace

SessionId = Annotated[strawberry.ID, strawberry.argument(description="The session.")]

WorkspaceEntryKind = enum_type(
    workspace.EntryKind,
    {
        "FILE": "A file.",
        "DIRECTORY": "A directory.",
        "SYMLINK": "A symbolic link. It is followed as long as it stays within the session's directory.",
        "OTHER": "A pipe, socket or device. It has no content that could be read.",
    },
)


@object_type
class WorkspaceEntry:
    """A name in a directory of a session."""

    name: str = column("The name; what of it is not UTF-8 is shown as �, and cannot be read by its path.")
    path: str = column("The path from the session's directory.")
    kind: WorkspaceEntryKind = column("What it is.")
    size: BigInt | None = column("Bytes of a file; null for anything else.")
    modified_at: datetime = column("When it last changed, as the file system says.")


@object_type
class WorkspaceFile:
    """A file of a session, and the part of its content that was asked for."""

    name: str = column("The name.")
    path: str = column("The path from the session's directory.")
    size: BigInt = column("Bytes of the whole file.")
    modified_at: datetime = column("When it last changed, as the file system says.")
    offset: BigInt = column("Where the part begins, in bytes.")
    text: str | None = column("The part as text; null where it is not text in UTF-8: see `base64`.")
    next_offset: BigInt | None = column("Where to go on reading, in bytes; null at the end of the file.")

    @strawberry.field(description="Whether more of the file follows: see `nextOffset`, or download it.")
    def truncated(root: Any) -> bool:
        return root.next_offset is not None

    @strawberry.field(description="The part's bytes in base64 where they are not text; null where they are.")
    def base64(root: Any) -> str | None:
        return None if root.text is not None else base64.b64encode(root.content).decode()

    @strawberry.field(
        description="Downloads the whole file, as it then is, without further credentials. Good for 15 minutes, and as "
        "long as you may read the session. Each download is recorded in the audit log in your name."
    )
    def download_url(root: Any, info: Info) -> str:
        return workspace.download_url(info.context.actor, root.session_id, root.path)


@strawberry.type
class WorkspaceQuery:
    @query(Permission.SESSIONS_READ)
    async def workspace_entries(
        info: Info,
        session_id: SessionId,
        path: Annotated[
            str, strawberry.argument(description="A directory, relative to the session's own; that one by default.")
        ] = ".",
        first: First = None,
        after: After = None,
    ) -> Connection[WorkspaceEntry]:
        """What is in a directory of a session, by name."""
        return await workspace.entries(
            info.context.actor, decode("ses", session_id, field="sessionId"), path, first=first, after=after
        )

    @query(Permission.SESSIONS_READ)
    async def workspace_file(
        info: Info,
        session_id: SessionId,
        path: Annotated[str, strawberry.argument(description="A file, relative to the session's directory.")],
        offset: Annotated[
            BigInt, strawberry.argument(description="Where to begin, in bytes: 0, or a `nextOffset`.")
        ] = BigInt(0),
        limit: Annotated[int, strawberry.argument(description="How many bytes to read at most, 1 to 1,048,576.")] = 256
        * 1024,
    ) -> WorkspaceFile:
        """Read a file of a session. Each reading is recorded in the audit log."""
        return await workspace.read_file(
            info.context.actor, decode("ses", session_id, field="sessionId"), path, offset=offset, limit=limit
        )
