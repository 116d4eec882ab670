"""What the tests of templates share: the documents, and doing the usual things with a client."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from tests.clients_of_graph import Client, Json

TEMPLATE = """
  id name title summary icon category categoryTitle organizationLevel latestVersion labels { name value }
  draft { digest revision updatedBy { name } specJson }
  owner { id } ownerTeam { id } access { level via { kind level } } deprecatedAt deprecationNote removedAt
"""
CREATE = (
    """
mutation ($input: CreateSessionTemplateInput!) { createSessionTemplate(input: $input) { template {%s} } }
"""
    % TEMPLATE
)
UPDATE = (
    """
mutation ($input: UpdateSessionTemplateInput!) { updateSessionTemplate(input: $input) { template {%s} } }
"""
    % TEMPLATE
)
GET = "query ($id: ID!) { sessionTemplate(id: $id) {%s} }" % TEMPLATE
VERSION = """
  id number digest message untestedReason author { name } rolledBackTo { number } specJson
  deprecatedAt deprecationNote replacement { number }
"""
PUBLISH = (
    """
mutation ($input: PublishSessionTemplateInput!) {
  publishSessionTemplate(input: $input) { version {%s} template { id latestVersion } }
}
"""
    % VERSION
)
ROLLBACK = (
    """
mutation ($input: RollbackSessionTemplateInput!) {
  rollbackSessionTemplate(input: $input) { version {%s} template { id latestVersion draft { digest } } }
}
"""
    % VERSION
)


async def make_template(client: Client, **fields: Any) -> Json:
    """A template of this client's; a name of its own unless one is given."""
    given = {"name": f"t-{uuid4().hex[:12]}", "title": "Review", "category": "development", "spec": {}} | fields
    return (await client(CREATE, input=given))["createSessionTemplate"]["template"]  # type: ignore[no-any-return]


async def change_template(client: Client, template: str, **fields: Any) -> Json:
    """Change a template."""
    made = await client(UPDATE, input={"templateId": template, **fields})
    return made["updateSessionTemplate"]["template"]  # type: ignore[no-any-return]


async def publish_untested(admin: Client, template: str, *, message: str = "") -> Json:
    """Publish the draft as an admin who has a reason; returns the version."""
    digest = (await admin(GET, id=template))["sessionTemplate"]["draft"]["digest"]
    asked = {"templateId": template, "digest": digest, "message": message, "untestedReason": "A test's own"}
    return (await admin(PUBLISH, input=asked))["publishSessionTemplate"]["version"]  # type: ignore[no-any-return]
