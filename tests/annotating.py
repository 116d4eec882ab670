"""What the tests of annotations share: the documents, and doing the usual things with a client."""

from __future__ import annotations

from typing import Any

from tests.clients_of_graph import Client, Json

THREAD = """
  id number status orphaned labels commentCount resolvedAt resolvedBy { id } author { id } copiedFromId
  anchor { block start end quote prefix suffix } session { id } message { id } toolExecution { id }
  comments(first: 20) { totalCount nodes { id number plain author { id } deletedAt copiedFromId } }
"""
COMMENT = """
  id number markdown html plain revisionCount editedAt deletedAt author { id name } deletedBy { id }
  mentions { id } reactionCounts { emoji count mine } reactions { nodes { emoji user { id } } }
  revisions { totalCount nodes { number markdown html } } thread { id }
"""
CREATE_ANNOTATION = (
    "mutation ($input: CreateAnnotationInput!) { createAnnotation(input: $input) { thread {"
    + THREAD
    + "} comment {"
    + COMMENT
    + "} } }"
)
REPLY = (
    "mutation ($input: ReplyToAnnotationInput!) { "
    "replyToAnnotation(input: $input) { thread { id commentCount } comment {" + COMMENT + "} } }"
)
THREAD_BY_ID = "query ($id: ID!) { annotationThread(id: $id) {" + THREAD + "} }"
SEARCH = """
query ($filter: AnnotationFilter, $first: Int, $after: String, $orderBy: Order! = NEWEST_FIRST) {
  annotations(filter: $filter, first: $first, after: $after, orderBy: $orderBy) {
    totalCount nodes { id session { id } } pageInfo { hasNextPage endCursor }
  }
}
"""
ON_MESSAGES = (
    """
query ($id: ID!) {
  session(id: $id) {
    messages(first: 10) {
      nodes { id text annotationCount openAnnotationCount annotations(first: 20) { nodes { %s } } }
    }
  }
}
"""
    % THREAD
)
REDACT = """
mutation ($input: RedactMessageInput!) { redactMessage(input: $input) { message { id text } } }
"""
SCORE = """
  id name type number boolean category source evaluator comment author { id } message { id } run { id }
  toolExecution { id } session { id } createdAt updatedAt
"""
RECORD = "mutation ($input: RecordScoreInput!) { recordScore(input: $input) { score {" + SCORE + "} } }"


async def annotate(client: Client, session: str, text: str = "Look here.", **more: Any) -> Json:
    """The thread and its first comment."""
    given = {"sessionId": session, "text": text} | more
    return (await client(CREATE_ANNOTATION, input=given))["createAnnotation"]  # type: ignore[no-any-return]


async def reply(client: Client, thread: str, text: str, **more: Any) -> Json:
    """The comment."""
    given = {"threadId": thread, "text": text} | more
    return (await client(REPLY, input=given))["replyToAnnotation"]["comment"]  # type: ignore[no-any-return]


async def on_comment(client: Client, mutation: str, comment: str, **more: Any) -> Json:
    """The comment after `editComment`, `deleteComment`, `reactToComment` or `removeReaction`."""
    return (await client(document_of(mutation), input={"commentId": comment} | more))[mutation]["comment"]  # type: ignore[no-any-return]


async def on_thread(client: Client, mutation: str, thread: str, **more: Any) -> Json:
    """The thread after `resolveAnnotation`, `reopenAnnotation` or `labelAnnotation`."""
    return (await client(document_of(mutation), input={"threadId": thread} | more))[mutation]["thread"]  # type: ignore[no-any-return]


def document_of(mutation: str) -> str:
    """A mutation of one comment or thread."""
    inputs = {
        "editComment": "EditCommentInput",
        "deleteComment": "CommentInput",
        "reactToComment": "ReactionInput",
        "removeReaction": "ReactionInput",
        "labelAnnotation": "LabelAnnotationInput",
    }
    what = f"thread {{ {THREAD} }}" if mutation.endswith("Annotation") else f"comment {{ {COMMENT} }}"
    return f"mutation ($input: {inputs.get(mutation, 'AnnotationInput')}!) {{ {mutation}(input: $input) {{ {what} }} }}"


async def thread_of(client: Client, id_: str) -> Json:
    return (await client(THREAD_BY_ID, id=id_))["annotationThread"]  # type: ignore[no-any-return]


async def found(client: Client, **filter_: Any) -> list[str]:
    """The ids of the threads that a filter takes, the newest first."""
    page = (await client(SEARCH, filter=filter_, first=100))["annotations"]
    assert page["totalCount"] == len(page["nodes"])
    return [node["id"] for node in page["nodes"]]
