"""What becomes of a comment: edited, deleted, reacted to."""

from __future__ import annotations

import unicodedata
from uuid import UUID

from core.errors import BadInput, Forbidden, IllegalTransition, LimitExceeded, NotFound
from core.ids import encode, new_id
from core.permissions import Actor, Permission
from models.annotations import AnnotationComment, AnnotationCommentRow, AnnotationThreadRow
from models.base import Query
from models.sharing import AccessLevel
from services.annotations import mentions
from services.annotations.threads import (
    COMMENT_COLUMNS,
    comment_in,
    emit,
    facts_of,
    lock_thread,
    parsed,
    tell_mentioned,
)
from services.notifications.telling import retract
from services.work import Work, write

MOST_REVISIONS = 100
"""Edits of a comment."""
MOST_EMOJI = 50
"""Different ones on a comment."""
LONGEST_EMOJI = 16
"""In characters: a family of four with their skin tones has 11."""
# What joins and varies emoji: the zero-width joiner, and the letters of flags of regions.
_JOINING = frozenset({"\u200d", *map(chr, range(0xE0020, 0xE0080))})


async def edit_comment(actor: Actor, comment_id: UUID, text: str) -> AnnotationCommentRow:
    """Replace a comment's text; what it said is kept in its history. Those who are newly mentioned are told.

    Raises NotFound, Forbidden where it is somebody else's, IllegalTransition where it is deleted, BadInput, TooLarge,
    LimitExceeded, RateLimited.
    """
    written = await parsed(text)
    async with write(actor, "annotation.edit") as work:
        comment, thread = await _lock(work, comment_id)
        if comment["author_id"] != actor.user_id:
            raise Forbidden("A comment is edited by its author only. Reply to it instead.", field="commentId")
        if comment["markdown"] == text:
            work.entry.action = ""  # nothing changes
            return comment
        if comment["revision_count"] >= MOST_REVISIONS:
            raise LimitExceeded(
                f"This comment was edited {MOST_REVISIONS} times, which is the most. Write another one.",
                field="commentId",
            )
        names = await mentions.names_of(
            work.tx, actor, thread["session_id"], written.mentions, known=comment["mentions"]
        )
        await work.tx.execute(
            "INSERT INTO annotation_revisions (id, comment_id, number, markdown, html, written_at) "
            "VALUES ($1, $2, $3, $4, $5, $6)",
            new_id(),
            comment_id,
            comment["revision_count"] + 1,
            comment["markdown"],
            comment["html"],
            comment["edited_at"] or comment["created_at"],
        )
        changed = await work.tx.fetchrow(
            "UPDATE annotation_comments SET markdown = $2, html = $3, plain = $4, mentions = $5, edited_at = $6, "
            f"revision_count = revision_count + 1 WHERE id = $1 RETURNING {COMMENT_COLUMNS}",
            comment_id,
            text,
            written.html(names),
            written.plain(names),
            list(written.mentions),
            work.at,
            row=AnnotationCommentRow,
        )
        assert changed is not None
        work.changed(
            before=facts_of(comment["markdown"]), after={"commentId": encode("com", comment_id), **facts_of(text)}
        )
        emit(work, thread, "edited", comment_id=comment_id)
        # Who was mentioned in the original of a copied comment has been told of that one.
        await tell_mentioned(work, changed, [user for user in written.mentions if user not in comment["mentions"]])
        return changed


async def delete_comment(actor: Actor, comment_id: UUID) -> AnnotationCommentRow:
    """Take a comment's text, history and reactions away for good, and what notifications say of it; its place in the
    thread stays. Again has no effect.

    Raises NotFound, Forbidden where it is somebody else's and the actor does not administer the session.
    """
    async with write(actor, "annotation.delete") as work:
        author = (await _find(work, comment_id))["author_id"]
        needs = AccessLevel.READ if author == actor.user_id else AccessLevel.ADMIN
        comment, thread = await _lock(work, comment_id, needs=needs, deleted=True)
        if comment["deleted_at"] is not None:
            work.entry.action = ""  # nothing changes
            return comment
        for table in ("annotation_revisions", "annotation_reactions"):
            await work.tx.execute(f"DELETE FROM {table} WHERE comment_id = $1", comment_id)
        await work.tx.execute(
            "UPDATE annotation_comments SET markdown = '', html = '', plain = '', mentions = '{}', revision_count = 0, "
            "deleted_at = $2, deleted_by_id = $3 WHERE id = $1",
            comment_id,
            work.at,
            actor.user_id,
        )
        await retract(work.tx, comment["session_id"], ("AnnotationComment", comment_id), "The comment was deleted.")
        work.changed(
            before={"commentId": encode("com", comment_id), "authorId": encode("usr", author)}
            | facts_of(comment["markdown"])
        )
        emit(work, thread, "deleted", comment_id=comment_id)
        return await comment_in(work, comment_id)


async def react_to_comment(actor: Actor, comment_id: UUID, emoji: str) -> AnnotationCommentRow:
    """Put an emoji on a comment. Again has no effect. Raises NotFound, BadInput, IllegalTransition, LimitExceeded."""
    emoji = check_emoji(emoji)
    async with write(actor, "annotation.react") as work:
        comment, thread = await _lock(work, comment_id)
        others = await work.tx.fetchval(
            "SELECT count(DISTINCT emoji) FROM annotation_reactions WHERE comment_id = $1 AND emoji <> $2",
            comment_id,
            emoji,
        )
        if others >= MOST_EMOJI:
            raise LimitExceeded(f"This comment has {MOST_EMOJI} different emoji. Use one of them.", field="emoji")
        made = await work.tx.fetchval(
            "INSERT INTO annotation_reactions (id, comment_id, user_id, emoji, created_at) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT (comment_id, user_id, emoji) DO NOTHING RETURNING id",
            new_id(),
            comment_id,
            actor.user_id,
            emoji,
            work.at,
        )
        if made is None:
            work.entry.action = ""  # nothing changes
            return comment
        work.changed(after={"commentId": encode("com", comment_id), "emoji": emoji})
        emit(work, thread, "reacted", comment_id=comment_id, emoji=emoji, removed=False)
        return comment


async def remove_reaction(actor: Actor, comment_id: UUID, emoji: str) -> AnnotationCommentRow:
    """Take one's own emoji away. Again has no effect. Raises NotFound, BadInput, IllegalTransition."""
    emoji = check_emoji(emoji)
    async with write(actor, "annotation.remove_reaction") as work:
        comment, thread = await _lock(work, comment_id)
        gone = await work.tx.fetchval(
            "DELETE FROM annotation_reactions WHERE comment_id = $1 AND user_id = $2 AND emoji = $3 RETURNING id",
            comment_id,
            actor.user_id,
            emoji,
        )
        if gone is None:
            work.entry.action = ""  # nothing changes
            return comment
        work.changed(before={"commentId": encode("com", comment_id), "emoji": emoji})
        emit(work, thread, "reacted", comment_id=comment_id, emoji=emoji, removed=True)
        return comment


def check_emoji(emoji: str) -> str:
    """An emoji, or a short name like `:ship-it:`: 1 to 16 characters that can be seen, without spaces."""
    emoji = unicodedata.normalize("NFC", emoji)
    if not 1 <= len(emoji) <= LONGEST_EMOJI or any(
        character.isspace() or (unicodedata.category(character)[0] == "C" and character not in _JOINING)
        for character in emoji
    ):
        raise BadInput(f"An emoji has 1 to {LONGEST_EMOJI} characters, and no spaces.", field="emoji")
    return emoji


async def _find(work: Work, comment_id: UUID) -> AnnotationCommentRow:
    work.actor.require(Permission.ANNOTATIONS_WRITE)
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT {COMMENT_COLUMNS} FROM annotation_comments WHERE id = {query.arg(comment_id)} "
        f"AND {query.scope(AnnotationComment.visible_to(work.actor))}",
        *query.args,
        row=AnnotationCommentRow,
    )
    if row is None:
        raise NotFound("There is no such comment, or you may not see it.", field="commentId")
    return row


async def _lock(
    work: Work, comment_id: UUID, *, needs: AccessLevel = AccessLevel.READ, deleted: bool = False
) -> tuple[AnnotationCommentRow, AnnotationThreadRow]:
    """A comment and its thread, with the session held."""
    thread = await lock_thread(work, (await _find(work, comment_id))["thread_id"], needs=needs)
    comment = await comment_in(work, comment_id)
    work.target("AnnotationComment", comment_id)
    if comment["deleted_at"] is not None and not deleted:
        raise IllegalTransition("This comment was deleted.", field="commentId")
    return comment, thread
