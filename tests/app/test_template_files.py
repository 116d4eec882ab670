"""Templates as files: exported, and applied by name, all of a file or nothing."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import jsonschema
import pytest
import yaml

from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.conftest import Server
from tests.templating import change_template, make_template, publish_untested

pytestmark = pytest.mark.anyio

APPLY = """
mutation ($input: ApplySessionTemplateInput!) { applySessionTemplate(input: $input) {
  dryRun results { name action digest changed
  difference { fromDigest toDigest changes { path kind before after } } template {
    id name title summary icon category labels { name value } latestVersion draft { revision digest specJson }
  } }
} }
"""
EXPORT = """
query ($id: ID!, $version: Int) { exportSessionTemplate(templateId: $id, version: $version) {
  name text digest findings { path message }
} }
"""
BY_NAME = "query ($name: String!) { sessionTemplate(name: $name) { id draft { revision digest } } }"
AUDIT = """
query { auditEvents(first: 30, filter: {action: "template."}) {
  nodes { action targetName outcome before after details }
} }
"""
SPEC: Json = {
    "runtime": "script",
    "systemPrompt": "Review thoroughly.\n\n- {{ area }}\n- and the tests \n",
    "parameters": {
        "type": "object",
        "properties": {
            "area": {"type": "string", "default": "yes"},
            "token": {"type": "string", "x-quarterdeck-secret": True},
        },
        "required": ["token"],
    },
    "mcpServers": [{"server": "git", "tools": ["git_log"]}, {"server": "time"}],
    "options": {"allowedTools": ["git.*"], "maxTurns": 20, "environment": ["GITHUB_TOKEN"]},
    "approvalRules": [{"tool": "shell", "decision": "ASK", "reason": "It can do anything"}],
    "messages": ["Look at {{ area }}."],
    "seed": {"files": [{"path": "run.sh", "content": "#!/bin/sh\n\techo 'no'\n", "executable": True}]},
    "budget": {"maxCostUsd": "1.50"},
    "labels": [{"name": "release", "value": "1.10"}],
    "overridable": ["TITLE", "MODEL"],
    "test": {"parameters": {"token": "GITHUB_TOKEN"}, "checks": [{"fileExists": "run.sh"}]},
}


def a_name() -> str:
    return f"f-{uuid4().hex[:12]}"


def document(name: str, spec: Json | None = None, **metadata: Any) -> str:
    head = {"name": name, "title": "From a file", "category": "development", **metadata}
    return "---\n" + yaml.safe_dump(
        {"apiVersion": "quarterdeck/v1", "kind": "SessionTemplate", "metadata": head, "spec": spec or {}},
        sort_keys=False,
    )


async def applied(client: Client, content: str, **more: Any) -> list[Json]:
    found = await client(APPLY, input={"content": content, **more})
    return found["applySessionTemplate"]["results"]  # type: ignore[no-any-return]


async def exported(client: Client, id_: str, version: int | None = None) -> Json:
    return (await client(EXPORT, id=id_, version=version))["exportSessionTemplate"]  # type: ignore[no-any-return]


async def test_a_template_is_exported_applied_elsewhere_and_exported_again_byte_for_byte(
    people: People, server: Server
) -> None:
    template = await make_template(
        people.member.client, spec=SPEC, summary="For: reviews", icon="🔎", labels=[{"name": "team", "value": "no"}]
    )
    file = await exported(people.member.client, template["id"])
    assert (file["digest"], file["findings"]) == (template["draft"]["digest"], [])
    async with httpx.AsyncClient() as http:
        response = await http.get(f"{server.base}/schemas/session-template.v1.json")
    schema = response.json()
    jsonschema.validate(yaml.safe_load(file["text"]), schema, jsonschema.Draft202012Validator)
    assert (await people.viewer.client("{ sessionTemplateJsonSchema }"))["sessionTemplateJsonSchema"] == schema
    # Another organisation has the name free.
    [made] = await applied(people.stranger.client, file["text"])
    assert (made["action"], made["digest"]) == ("CREATED", file["digest"])
    assert made["template"]["draft"]["specJson"] == template["draft"]["specJson"]
    assert (await exported(people.stranger.client, made["template"]["id"]))["text"] == file["text"]
    [again] = await applied(people.member.client, file["text"])
    assert (again["action"], again["template"]["draft"]["revision"]) == ("UNCHANGED", 1)


async def test_every_template_there_is_makes_a_valid_file_that_changes_nothing(people: People) -> None:
    await make_template(people.admin.client, spec=SPEC)
    asked = "{ sessionTemplates(first: 100, orderBy: CREATED_OLDEST_FIRST) { nodes { id name } } }"
    templates = (await people.admin.client(asked))["sessionTemplates"]["nodes"]
    schema = jsonschema.Draft202012Validator((await people.admin.client("{ sessionTemplateJsonSchema }")).popitem()[1])
    texts = [(await exported(people.admin.client, template["id"]))["text"] for template in templates[:40]]
    for text in texts:
        schema.validate(yaml.safe_load(text))
    content = "---\n".join(texts)
    assert {each["action"] for each in await applied(people.admin.client, content, dryRun=True)} == {"UNCHANGED"}


async def test_a_version_is_exported_as_it_was_published(people: People) -> None:
    template = await make_template(people.admin.client, spec={"title": "First"})
    await publish_untested(people.admin.client, template["id"])
    await change_template(people.admin.client, template["id"], spec={"title": "Second"})
    first = await exported(people.admin.client, template["id"], 1)
    assert "title: First" in first["text"]
    assert "title: Second" in (await exported(people.admin.client, template["id"]))["text"]
    for number in (2, 0, -1, 2**31 - 1):
        refused = await people.admin.client.refused(EXPORT, id=template["id"], version=number)
        assert (refused.codes, refused.extensions["field"]) == (["NOT_FOUND"], "version")
    for client in (people.member.client, people.stranger.client):
        refused = await client.refused(EXPORT, id=template["id"])
        assert (refused.codes, refused.extensions["field"]) == (["NOT_FOUND"], "templateId")


async def test_a_file_makes_changes_and_leaves_alone(people: People) -> None:
    client, one, two = people.member.client, a_name(), a_name()
    made = await applied(client, document(one, {"title": "One"}, labels={"a": "1"}) + document(two))
    assert [(each["name"], each["action"]) for each in made] == [(one, "CREATED"), (two, "CREATED")]
    assert made[0]["changed"] == ["metadata.title", "metadata.category", "metadata.labels", "spec.title"]
    changed = document(one, {"title": "Other", "model": "a:b"}, title="New  title") + document(two)
    found = await applied(client, changed)
    assert [each["action"] for each in found] == ["UPDATED", "UNCHANGED"]
    assert found[0]["changed"] == ["metadata.title", "metadata.labels", "spec.model", "spec.title"]
    assert found[0]["difference"] == {
        "fromDigest": made[0]["digest"],
        "toDigest": found[0]["digest"],
        "changes": [
            {"path": "/title", "kind": "CHANGED", "before": "One", "after": "Other"},
            {"path": "/model", "kind": "ADDED", "before": None, "after": "a:b"},
        ],
    }
    assert (made[0]["difference"], found[1]["difference"]["changes"]) == (None, [])
    template = found[0]["template"]
    assert (template["title"], template["labels"], template["draft"]["revision"]) == ("New title", [], 2)
    assert template["id"] == made[0]["template"]["id"]
    assert [each["action"] for each in await applied(client, changed)] == ["UNCHANGED", "UNCHANGED"]


async def test_each_change_is_audited_and_nothing_else(people: People) -> None:
    async def records() -> list[Json]:
        return (await people.admin.client(AUDIT))["auditEvents"]["nodes"]  # type: ignore[no-any-return]

    one, two = a_name(), a_name()
    content = document(one, title=one) + document(two, title=two)
    await applied(people.member.client, content, dryRun=True)
    await applied(people.member.client, content)
    await applied(people.member.client, content)
    await applied(people.member.client, document(one, {"model": "a:b"}, title=one) + document(two, title=two))
    found = [each for each in await records() if each["targetName"] in (one, two)]
    assert sorted((each["action"], each["targetName"]) for each in found) == sorted(
        [("template.create", one), ("template.create", two), ("template.update", one)]
    )
    assert all(each["details"] == {"by": "file"} for each in found)
    update = next(each for each in found if each["action"] == "template.update")
    assert update["before"].keys() == update["after"].keys() == {"draftDigest"}


async def test_a_dry_run_says_the_same_and_changes_nothing(people: People) -> None:
    client, one, two = people.member.client, a_name(), a_name()
    [before] = await applied(client, document(one))
    content = document(one, {"title": "Other"}) + document(two)
    dry = await applied(client, content, dryRun=True)
    assert (await client(BY_NAME, name=one))["sessionTemplate"]["draft"]["revision"] == 1
    assert (await client(BY_NAME, name=two))["sessionTemplate"] is None
    assert dry[0]["template"]["draft"]["digest"] == before["digest"]
    assert dry[1]["template"] is None
    done = await applied(client, content)
    for key in ("name", "action", "digest", "changed", "difference"):
        assert [each[key] for each in dry] == [each[key] for each in done]
    for wrong in (document(one, {"parameters": {"type": "nonsense"}}), document(a_name(), category="nowhere")):
        refused = [
            await client.refused(APPLY, input={"content": wrong, "dryRun": dry_run}) for dry_run in (True, False)
        ]
        assert refused[0].errors[0]["extensions"]["fields"] == refused[1].errors[0]["extensions"]["fields"]


async def test_all_of_a_file_or_nothing(people: People) -> None:
    client, one, two = people.member.client, a_name(), a_name()
    content = document(one) + document(two, {"parameters": {"type": "object", "properties": {"a": {"type": "null"}}}})
    refused = await client.refused(APPLY, input={"content": content})
    [field] = refused.extensions["fields"]
    assert refused.codes == ["BAD_INPUT"]
    assert field["field"].startswith("documents.1.spec.parameters")
    lines = content.splitlines()
    assert field["line"] == 1 + next(n for n, line in enumerate(lines) if n > 10 and line.strip() == "type: 'null'")
    assert (await client(BY_NAME, name=one))["sessionTemplate"] is None
    refused = await client.refused(APPLY, input={"content": document(one) + document(two, category="nowhere")})
    assert refused.extensions["fields"][0]["field"] == "documents.1.metadata.category"
    assert "line " in refused.message
    assert (await client(BY_NAME, name=one))["sessionTemplate"] is None


async def test_a_file_with_problems_is_refused_with_all_of_them(people: People) -> None:
    content = document("Not a name", {"options": {"maxTurns": 0}, "wrong": 1})
    refused = await people.member.client.refused(APPLY, input={"content": content})
    assert [each["field"] for each in refused.extensions["fields"]] == [
        "documents.0.metadata.name",
        "documents.0.spec.options.maxTurns",
        "documents.0.spec.wrong",
    ]
    for bad in ("", "a: *b", "a: [", "x: &a [*a]", "[" * 5000, "a: \u0007", "--- !!python/none x"):
        refused = await people.member.client.refused(APPLY, input={"content": bad})
        assert refused.codes == ["BAD_INPUT"], bad
    refused = await people.member.client.refused(APPLY, input={"content": "#" * 1_500_001})
    assert refused.codes == ["TOO_LARGE"]


async def test_what_somebody_else_changed_meanwhile_is_not_lost(people: People) -> None:
    client, name = people.member.client, a_name()
    [made] = await applied(client, document(name), expectedRevision=0)
    await change_template(client, made["template"]["id"], title="By hand")
    changed = document(name, {"title": "Other"})
    for revision in (0, 1, 7):
        refused = await client.refused(APPLY, input={"content": changed, "expectedRevision": revision})
        assert (refused.codes, refused.extensions["field"]) == (["CONFLICT"], "expectedRevision")
    [found] = await applied(client, changed, expectedRevision=2)
    assert (found["action"], found["template"]["draft"]["revision"]) == ("UPDATED", 3)
    refused = await client.refused(APPLY, input={"content": document(a_name()), "expectedRevision": 1})
    assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "expectedRevision")
    several = document(name) + document(a_name())
    refused = await client.refused(APPLY, input={"content": several, "expectedRevision": 3})
    assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "expectedRevision")


async def test_applying_takes_edit_and_gives_nothing_away(people: People) -> None:
    name = a_name()
    [made] = await applied(people.member.client, document(name))
    content = document(name, {"title": "Mine now"})
    # Who does not see it learns that the name is taken, as everybody who makes a template does.
    refused = await people.colleague.client.refused(APPLY, input={"content": content})
    assert refused.codes == ["CONFLICT"]
    assert made["template"]["id"] not in str(refused.errors)
    seen = await make_template(people.member.client, organizationLevel="USE")
    refused = await people.colleague.client.refused(APPLY, input={"content": document(seen["name"])})
    assert refused.codes == ["FORBIDDEN"]
    refused = await people.viewer.client.refused(APPLY, input={"content": content})
    assert refused.codes == ["FORBIDDEN"]


async def test_many_who_apply_the_same_at_once_make_it_once(people: People) -> None:
    one, two = sorted((a_name(), a_name()))
    # In both orders, so that they would wait for each other.
    contents = [document(one) + document(two), document(two) + document(one)] * 5
    found = await asyncio.gather(*(applied(people.member.client, content) for content in contents))
    actions = [each["action"] for results in found for each in results]
    assert (actions.count("CREATED"), actions.count("UNCHANGED")) == (2, 18)
    assert len({each["template"]["id"] for results in found for each in results}) == 2


async def test_what_looks_like_a_credential_is_told(people: People) -> None:
    spec = {"systemPrompt": "Use sk-abcdefghijklmnopqrstuvwx for it", "messages": ["hello"]}
    template = await make_template(people.member.client, spec=spec)
    [finding] = (await exported(people.member.client, template["id"]))["findings"]
    assert finding["path"] == "spec.systemPrompt"
    assert "environment variable" in finding["message"]
