"""Templates through the graph: drafts, versions, going back, and saying that something is out of date."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from core.ids import decode
from tests.app.conftest import People
from tests.app.test_sharing_matrix import database_of
from tests.clients_of_graph import Client, Refused
from tests.conftest import Server
from tests.templating import GET, PUBLISH, ROLLBACK, change_template, make_template, publish_untested

pytestmark = pytest.mark.anyio

SPEC = {
    "runtime": "script",
    "systemPrompt": "Review {{ area }} thoroughly.",
    "permissionMode": "ACCEPT_EDITS",
    "parameters": {"type": "object", "properties": {"area": {"type": "string", "default": "all"}}},
    "mcpServers": [{"server": "git", "tools": ["git_log"]}, {"server": "time"}],
    "options": {"allowedTools": ["git.*"], "maxTurns": 20},
    "approvalRules": [{"tool": "shell", "decision": "ASK", "reason": "It can do anything"}],
    "messages": ["Look at {{ area }}."],
    "seed": {"files": [{"path": "NOTES.md", "content": "Notes\n"}]},
    "budget": {"maxCostUsd": "1.50", "maxTurns": 50},
    "labels": [{"name": "area", "value": "{{ area }}"}],
    "overridable": ["TITLE", "MODEL"],
    "test": {"parameters": {"area": "tests"}, "checks": [{"fileExists": "NOTES.md"}], "timeoutSeconds": 60},
}
TYPED = """
query ($id: ID!) { sessionTemplate(id: $id) { draft { spec {
  runtime model permissionMode systemPrompt parameters messages title visibility overridable
  mcpServers { server tools } options { allowedTools maxTurns environment workingDirectory }
  approvalRules { tool decision reason } labels { name value }
  seed { files { path content encoding executable } repository { url } archive { url } }
  budget { maxCostUsd maxTurns } test { parameters checks { fileExists toolCalled } timeoutSeconds messages }
} } } }
"""


async def refusal(client: Client, document: str, **variables: Any) -> dict[str, Any]:
    """The extensions of the one error, with its message."""
    with pytest.raises(Refused) as refused:
        await client(document, **variables)
    [error] = refused.value.errors
    return error["extensions"] | {"message": error["message"]}  # type: ignore[no-any-return]


async def test_a_template_is_made_with_all_that_a_session_can_be_given(people: People) -> None:
    template = await make_template(people.member.client, spec=SPEC, summary="For reviews", icon="🔎")
    assert template["draft"]["revision"] == 1
    assert template["access"] == {"level": "ADMIN", "via": [{"kind": "OWNER", "level": "ADMIN"}]}
    assert template["categoryTitle"] == "Development"
    typed = (await people.member.client(TYPED, id=template["id"]))["sessionTemplate"]["draft"]["spec"]
    assert typed["mcpServers"] == [{"server": "git", "tools": ["git_log"]}, {"server": "time", "tools": None}]
    assert typed["approvalRules"] == [{"tool": "shell", "decision": "ASK", "reason": "It can do anything"}]
    assert typed["options"] == {"allowedTools": ["git.*"], "maxTurns": 20, "environment": [], "workingDirectory": "."}
    assert typed["seed"]["files"] == [
        {"path": "NOTES.md", "content": "Notes\n", "encoding": "utf-8", "executable": False}
    ]
    assert typed["test"]["checks"] == [{"fileExists": "NOTES.md", "toolCalled": None}]
    assert typed["budget"] == {"maxCostUsd": "1.50", "maxTurns": 50}
    assert typed["overridable"] == ["TITLE", "MODEL"] or typed["overridable"] == ["MODEL", "TITLE"]
    # What is left out is not stored: the JSON is as short as a person would write it.
    assert "visibility" not in template["draft"]["specJson"]
    assert template["draft"]["specJson"]["test"]["timeoutSeconds"] == 60


async def test_every_problem_of_a_template_is_told_with_its_place(people: People) -> None:
    spec = {
        "mcpServers": [{"server": ""}],
        "seed": {"files": [{"path": "../etc/passwd", "content": ""}]},
        "budget": {"maxCostUsd": "-1"},
        "options": {"maxTurns": 100_000, "effort": "mighty"},
    }
    with pytest.raises(Refused) as refused:
        await make_template(people.member.client, spec=spec)
    fields = {each["field"] for each in refused.value.errors[0]["extensions"]["fields"]}
    assert refused.value.codes == ["BAD_INPUT"]
    assert {"spec.mcpServers.0.server", "spec.seed.files.0.path", "spec.budget.maxCostUsd"} <= fields
    with pytest.raises(Refused) as refused:
        await make_template(people.member.client, name="Not A Name", title=" ", summary="x" * 501, icon="y" * 65)
    assert {each["field"] for each in refused.value.errors[0]["extensions"]["fields"]} == {
        "name",
        "title",
        "summary",
        "icon",
    }
    with pytest.raises(Refused, match="There is no category 'cooking'"):
        await make_template(people.member.client, category="cooking")


async def test_a_name_is_taken_once_and_free_again_when_its_template_is_removed(people: People) -> None:
    name, client = f"t-{uuid4().hex[:8]}", people.member.client
    first = await make_template(client, name=name)
    with pytest.raises(Refused) as refused:
        await make_template(people.colleague.client, name=name)
    assert refused.value.codes == ["CONFLICT"]
    other = await make_template(client)
    with pytest.raises(Refused) as refused:
        await change_template(client, other["id"], name=name)
    assert refused.value.codes == ["CONFLICT"]
    remove = (
        "mutation ($input: SessionTemplateInput!) { removeSessionTemplate(input: $input) { template { removedAt } } }"
    )
    assert (await client(remove, input={"templateId": first["id"]}))["removeSessionTemplate"]["template"]["removedAt"]
    assert (await make_template(people.colleague.client, name=name))["name"] == name
    assert (await refusal(client, remove, input={"templateId": first["id"]}))["code"] == "NOT_FOUND"


async def test_the_same_key_makes_one_template(people: People) -> None:
    given = {"name": f"t-{uuid4().hex[:8]}", "idempotencyKey": uuid4().hex}
    one, same = await asyncio.gather(*(make_template(people.member.client, **given) for _ in range(2)))
    assert one["id"] == same["id"]


async def test_who_did_not_see_the_last_change_changes_nothing(people: People) -> None:
    client = people.member.client
    template = await make_template(client, organizationLevel="EDIT")
    theirs = await change_template(
        people.colleague.client, template["id"], spec={"systemPrompt": "Theirs"}, expectedRevision=1
    )
    assert theirs["draft"]["revision"] == 2
    with pytest.raises(Refused) as refused:
        await change_template(client, template["id"], spec={"systemPrompt": "Mine"}, expectedRevision=1)
    assert refused.value.codes == ["CONFLICT"]
    assert refused.value.errors[0]["extensions"]["revision"] == 2
    assert "Test Colleague" in refused.value.errors[0]["message"]
    # The same once more is no change.
    again = await change_template(people.colleague.client, template["id"], spec={"systemPrompt": "Theirs"})
    assert again["draft"]["revision"] == 2


async def test_a_draft_without_a_green_test_is_published_only_by_an_admin_with_a_reason(people: People) -> None:
    member, admin = people.member.client, people.admin.client
    template = await make_template(member, spec=SPEC)
    asked = {"templateId": template["id"], "digest": template["draft"]["digest"], "message": "First"}
    untested = await refusal(member, PUBLISH, input=asked)
    assert untested["code"] == "ILLEGAL_TRANSITION"
    assert "testSessionTemplate" in untested["message"]
    assert (await refusal(member, PUBLISH, input=asked | {"untestedReason": "Trust me"}))["code"] == "FORBIDDEN"
    assert (await refusal(admin, PUBLISH, input=asked))["code"] == "ILLEGAL_TRANSITION"
    made = (await admin(PUBLISH, input=asked | {"untestedReason": "It is urgent"}))["publishSessionTemplate"]
    assert made["version"]["number"] == 1
    assert made["template"]["latestVersion"] == 1
    assert made["version"]["untestedReason"] == "It is urgent"
    assert made["version"]["specJson"] == template["draft"]["specJson"]


async def test_only_what_was_seen_is_published(people: People) -> None:
    member, admin = people.member.client, people.admin.client
    template = await make_template(member, spec=SPEC)
    await change_template(member, template["id"], spec={"systemPrompt": "Another"})
    asked = {"templateId": template["id"], "digest": template["draft"]["digest"], "untestedReason": "A test's own"}
    stale = await refusal(admin, PUBLISH, input=asked)
    assert stale["code"] == "CONFLICT"
    assert "Test Member has changed the draft" in stale["message"]
    assert stale["revision"] == 2


async def test_two_publishers_at_once_make_one_version(people: People) -> None:
    admin = people.admin.client
    template = await make_template(admin, spec=SPEC)
    asked = {"templateId": template["id"], "digest": template["draft"]["digest"], "untestedReason": "A test's own"}
    done = await asyncio.gather(*(admin(PUBLISH, input=asked) for _ in range(5)), return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in done) == 1
    for each in done:
        if isinstance(each, BaseException):
            assert isinstance(each, Refused)
            assert each.codes == ["CONFLICT"]
            assert each.errors[0]["extensions"]["version"] == 1
    versions = "query ($id: ID!) { sessionTemplate(id: $id) { versions { totalCount nodes { number } } } }"
    assert (await admin(versions, id=template["id"]))["sessionTemplate"]["versions"]["totalCount"] == 1


async def test_a_version_never_changes_whoever_writes(people: People, server: Server) -> None:
    template = await make_template(people.member.client, spec=SPEC)
    version = decode("tpv", (await publish_untested(people.admin.client, template["id"]))["id"])
    async with database_of(server) as connection:
        for role in ("quarterdeck_app", "none"):
            await connection.execute(f"SET ROLE {role}")
            for change in (
                "UPDATE session_template_versions SET spec = '{}' WHERE id = $1",
                "UPDATE session_template_versions SET digest = repeat('0', 64) WHERE id = $1",
                "UPDATE session_template_versions SET number = 7 WHERE id = $1",
                "UPDATE session_template_versions SET created_at = now() WHERE id = $1",
                "DELETE FROM session_template_versions WHERE id = $1",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(change, version)
            await connection.execute(
                "UPDATE session_template_versions SET use_count = use_count WHERE id = $1", version
            )


async def test_going_back_publishes_the_old_version_again_and_leaves_the_draft(people: People) -> None:
    admin = people.admin.client
    template = await make_template(admin, spec={"systemPrompt": "One"})
    one = await publish_untested(admin, template["id"])
    await change_template(admin, template["id"], spec={"systemPrompt": "Two"})
    await publish_untested(admin, template["id"])
    draft = await change_template(admin, template["id"], spec={"systemPrompt": "Three"})
    back = {"templateId": template["id"], "to": 1}
    done = await asyncio.gather(*(admin(ROLLBACK, input=back) for _ in range(2)), return_exceptions=True)
    [made] = [each["rollbackSessionTemplate"] for each in done if not isinstance(each, BaseException)]
    [lost] = [each for each in done if isinstance(each, Refused)]
    assert lost.codes == ["CONFLICT"]
    assert made["version"]["number"] == 3
    assert made["version"]["rolledBackTo"] == {"number": 1}
    assert made["version"]["digest"] == one["digest"]
    assert made["version"]["specJson"] == one["specJson"]
    assert made["template"]["draft"]["digest"] == draft["draft"]["digest"]
    missing = await refusal(admin, ROLLBACK, input=back | {"to": 9})
    assert missing["code"] == "NOT_FOUND"
    assert "it has 1 to 3" in missing["message"]


DEPRECATE_VERSION = """
mutation ($input: DeprecateSessionTemplateVersionInput!) {
  deprecateSessionTemplateVersion(input: $input) {
    version { number deprecatedAt deprecationNote replacement { number } }
  }
}
"""
DEPRECATE = """
mutation ($input: DeprecateSessionTemplateInput!) {
  deprecateSessionTemplate(input: $input) { template { id deprecatedAt deprecationNote replacement { id } } }
}
"""
REINSTATE = """
mutation ($input: ReinstateSessionTemplateInput!) {
  reinstateSessionTemplate(input: $input) { template { id deprecatedAt replacement { id } } }
}
"""


async def test_what_replaces_something_deprecated_never_goes_round(people: People) -> None:
    admin = people.admin.client
    template = await make_template(admin, spec={"systemPrompt": "1"})
    await publish_untested(admin, template["id"])
    for text in ("2", "3"):
        await change_template(admin, template["id"], spec={"systemPrompt": text})
        await publish_untested(admin, template["id"])
    named = {"templateId": template["id"], "version": 1, "note": "It leaks", "replacement": 2}
    made = (await admin(DEPRECATE_VERSION, input=named))["deprecateSessionTemplateVersion"]["version"]
    assert made["deprecatedAt"]
    assert made["deprecationNote"] == "It leaks"
    assert made["replacement"] == {"number": 2}
    round_ = {"templateId": template["id"], "version": 2, "replacement": 1}
    assert (await refusal(admin, DEPRECATE_VERSION, input=round_))["code"] == "CONFLICT"
    assert (await refusal(admin, DEPRECATE_VERSION, input=round_ | {"replacement": 2}))["code"] == "BAD_INPUT"
    assert (await refusal(admin, DEPRECATE_VERSION, input=round_ | {"version": 3}))["code"] == "CONFLICT"
    assert (await refusal(admin, ROLLBACK, input={"templateId": template["id"], "to": 1}))["code"] == "CONFLICT"

    other = await make_template(admin)
    to_other = {"templateId": template["id"], "replacementId": other["id"], "note": "Use the other"}
    assert (await refusal(admin, DEPRECATE, input=to_other))["code"] == "CONFLICT"  # it has no version
    await publish_untested(admin, other["id"])
    both = await asyncio.gather(
        admin(DEPRECATE, input=to_other),
        admin(DEPRECATE, input={"templateId": other["id"], "replacementId": template["id"]}),
        return_exceptions=True,
    )
    assert [type(each) for each in both].count(Refused) == 1
    gone, left = (template, other) if not isinstance(both[0], Refused) else (other, template)
    read = (await admin(GET, id=gone["id"]))["sessionTemplate"]
    assert read["deprecatedAt"]
    assert (await admin(GET, id=left["id"]))["sessionTemplate"]["deprecatedAt"] is None
    back = (await admin(REINSTATE, input={"templateId": gone["id"]}))["reinstateSessionTemplate"]["template"]
    assert back == {"id": gone["id"], "deprecatedAt": None, "replacement": None}


async def test_strangers_find_nothing_and_viewers_change_nothing(people: People) -> None:
    template = await make_template(people.member.client, organizationLevel="EDIT")
    assert (await people.stranger.client(GET, id=template["id"]))["sessionTemplate"] is None
    with pytest.raises(Refused) as refused:
        await change_template(people.stranger.client, template["id"], title="Mine")
    assert refused.value.codes == ["NOT_FOUND"]
    with pytest.raises(Refused) as refused:
        await change_template(people.viewer.client, template["id"], title="Mine")
    assert refused.value.codes == ["FORBIDDEN"]


async def test_a_template_is_given_to_somebody_else_by_its_owner_alone(people: People) -> None:
    transfer = """
    mutation ($input: TransferSessionTemplateInput!) {
      transferSessionTemplate(input: $input) { template { owner { id } } }
    }
    """
    template = await make_template(people.member.client, organizationLevel="EDIT")
    to = {"templateId": template["id"], "ownerId": people.colleague.id}
    assert (await refusal(people.colleague.client, transfer, input=to))["code"] == "FORBIDDEN"
    assert (await refusal(people.member.client, transfer, input=to | {"ownerId": people.viewer.id}))[
        "code"
    ] == "BAD_INPUT"
    assert (await refusal(people.member.client, transfer, input=to | {"ownerId": people.stranger.id}))[
        "code"
    ] == "NOT_FOUND"
    made = (await people.member.client(transfer, input=to))["transferSessionTemplate"]["template"]
    assert made["owner"]["id"] == people.colleague.id
    with pytest.raises(Refused) as refused:
        await people.member.client(transfer, input=to | {"ownerId": people.member.id})
    assert refused.value.codes == ["FORBIDDEN"]
