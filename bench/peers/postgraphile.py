"""The read documents of bench/cases.py as PostGraphile's clients write them: aliases give its fields our names.

It says ids as UUIDs and big integers as strings, and writes times in its own way: compared is what answers mean.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from core.ids import decode, split

_NEWEST_FIRST = "orderBy: [CREATED_AT_DESC, PRIMARY_KEY_DESC]"

_DOCUMENTS = {
    "Q1": """query One($id: UUID!) { session: sessionByRowId(rowId: $id) {
  id: rowId title status runtime permissionMode messageCount toolExecutionCount createdAt updatedAt
} }""",
    "Q2": f"""query Nested($first: Int!, $messages: Int!, $before: Datetime!) {{
  sessions: allSessions(first: $first, condition: {{createdBefore: $before}}, {_NEWEST_FIRST}) {{ nodes {{
    id: rowId title status toolExecutionCount
    owner: userByOwnerId {{ id: rowId name }}
    messages: messagesBySessionId(first: $messages, orderBy: SEQ_DESC) {{
      totalCount nodes {{ id: rowId role text createdAt }}
    }}
  }} }}
}}""",
    "Q3": f"""query Flat($first: Int!, $messages: Int!, $before: Datetime!) {{
  sessions: allSessions(
    first: $first, condition: {{createdBefore: $before, labelled: {{size: "long"}}}}, {_NEWEST_FIRST}
  ) {{ nodes {{
    messages: messagesBySessionId(first: $messages, orderBy: SEQ_ASC) {{
      nodes {{ id: rowId role status seq text createdAt }}
    }}
  }} }}
}}""",
}


def asked(key: str, variables: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The document for a case, and its variables."""
    if "id" in variables:
        variables = {**variables, "id": str(decode("ses", variables["id"]))}
    return _DOCUMENTS[key], variables


def meaning(answer: Any) -> Any:
    """An answer's data, the product's or PostGraphile's, with ids, times and places in the log as what they are."""
    if isinstance(answer, list):
        return [meaning(value) for value in answer]
    if isinstance(answer, dict):
        return {name: _meaning_of(name, value) for name, value in answer.items()}
    return answer


def _meaning_of(name: str, value: Any) -> Any:
    if name == "id":
        return split(value)[1] if "_" in value else UUID(value)
    if name == "seq":
        return int(value)
    if name.endswith("At"):
        return datetime.fromisoformat(value)
    return meaning(value)
