"""Annotations of a conversation that is forked: they go along with the messages they are on."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from core.errors import LimitExceeded
from services.work import Work

MOST_COMMENTS = 20_000
"""That a fork copies: all in one transaction."""

# Who wrote and resolved what stays so. Reactions and histories are of the original; nobody is told of a copy.
_COPY = """
WITH threads AS MATERIALIZED (
    SELECT original.*, gen_random_uuid() AS copy, copied.id AS copied_message,
           row_number() OVER (ORDER BY original.number) AS place
    FROM unnest($2::uuid[], $3::uuid[]) AS copied (source, id)
    JOIN annotation_threads AS original ON original.message_id = copied.source
),
copies AS (
    INSERT INTO annotation_threads (id, organization_id, session_id, number, message_id, block, range_start, range_end,
        quote, prefix, suffix, orphaned, author_id, status, resolved_by_id, resolved_at, labels, comment_count,
        copied_from_id, created_at, updated_at)
    SELECT copy, organization_id, $1, place, copied_message, block, range_start, range_end, quote, prefix, suffix,
        orphaned, author_id, status, resolved_by_id, resolved_at, labels, comment_count, id, created_at, updated_at
    FROM threads
)
INSERT INTO annotation_comments (id, organization_id, session_id, thread_id, number, author_id, markdown, html, plain,
    mentions, revision_count, edited_at, deleted_at, deleted_by_id, copied_from_id, created_at)
SELECT gen_random_uuid(), said.organization_id, $1, threads.copy, said.number, said.author_id, said.markdown, said.html,
    said.plain, said.mentions, 0, said.edited_at, said.deleted_at, said.deleted_by_id, said.id, said.created_at
FROM threads JOIN annotation_comments AS said ON said.thread_id = threads.id
"""


async def copy_annotations(work: Work, fork_id: UUID, sources: Sequence[UUID], copies: Sequence[UUID]) -> int:
    """Copy the threads on messages to the copies of these in a new session, inside the database. How many threads.

    Raises LimitExceeded over MOST_COMMENTS comments.
    """
    found = await work.tx.fetchrow(
        "SELECT count(*) AS threads, coalesce(sum(comment_count), 0) AS comments FROM annotation_threads "
        "WHERE message_id = ANY($1)",
        list(sources),
    )
    assert found is not None
    if found["comments"] > MOST_COMMENTS:
        raise LimitExceeded(
            f"This fork would copy more than {MOST_COMMENTS:,} comments. Fork at an earlier message.", field="messageId"
        )
    if found["threads"]:
        await work.tx.execute(_COPY, fork_id, list(sources), list(copies))
    return found["threads"]  # type: ignore[no-any-return]
