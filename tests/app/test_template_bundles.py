"""Templates go from one installation to another: signed, trusted, untouched, and tested again where they arrive."""

from __future__ import annotations

import asyncio
import base64
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.conftest import Server, environment_for, free_port, running, wait_until_ready
from tests.databases import TestServer
from tests.templating import PUBLISH, change_template, make_template, publish_untested

pytestmark = pytest.mark.anyio

EXPORT = """
mutation ($input: ExportTemplateBundleInput!) { exportTemplateBundle(input: $input) { bundle {
  fileName sha256 size fingerprint downloadUrl expiresAt findings { path }
} } }
"""
IMPORT = """
mutation ($input: ImportTemplateBundleInput!) { importTemplateBundle(input: $input) {
  result { name action digest changed template { id latestVersion title draft { digest revision specJson } } }
  origin { publisher fingerprint version digest bundleSha256 importedBy { name } }
} }
"""
TRUST = """
mutation ($input: TrustPublisherInput!) { trustPublisher(input: $input) {
  publisher { id name publicKey fingerprint addedBy { name } }
} }
"""
DISTRUST = """
mutation ($id: ID!) { distrustPublisher(input: {publisherId: $id}) { publisher { name } } }
"""
ROTATE = """
mutation { rotateTemplateSigningKey(input: {confirm: true}) { signingKey { publicKey fingerprint } } }
"""
KEY = "{ templateSigningKey { publicKey fingerprint createdAt } }"
BY_NAME = """
query ($name: String!) { sessionTemplate(name: $name) { id draft { digest revision } origin { version digest } } }
"""
AUDIT = 'query { auditEvents(first: 50, filter: {action: "template.import"}) { nodes { action outcome details } } }'
SPEC: Json = {
    "runtime": "script",
    "systemPrompt": "Review\n  thoroughly\n",
    "messages": ["playbook: Greet\nsteps:\n  - say: Hello\n"],
}
TEST = """
mutation ($id: ID!) { testSessionTemplate(input: {templateId: $id}) { test { id } } }
"""
REPORT = "query ($id: ID!) { templateTest(id: $id) { status checks { title status message } } }"


@pytest.fixture(scope="module")
def there(postgres: TestServer, migrated: str) -> Iterator[Server]:
    """Another installation: its own database, folder and secret."""
    url = postgres.create_database(template=migrated)
    with tempfile.TemporaryDirectory(prefix="quarterdeck-test-") as folder:
        home, token, port = Path(folder), secrets.token_urlsafe(24), free_port()
        secret = "another-installation-" + "s" * 32
        found = Server(port, token, home, environment_for(url, home, port, token, QUARTERDECK_SECRET_KEY=secret))
        with running("dev", found.environment, home) as process:
            wait_until_ready(found, process)
            yield found
    postgres.drop_database(url)


async def published(admin: Client, *specs: Json, **fields: Any) -> Json:
    """A template with a version for each specification."""
    template = await make_template(admin, spec=specs[0], **fields)
    await publish_untested(admin, template["id"])
    for spec in specs[1:]:
        await change_template(admin, template["id"], spec=spec)
        await publish_untested(admin, template["id"])
    return template


async def exported(admin: Client, template: Json, *versions: int) -> bytes:
    made = await admin(EXPORT, input={"templateId": template["id"], "versions": list(versions)})
    async with httpx.AsyncClient() as http:
        response = await http.get(made["exportTemplateBundle"]["bundle"]["downloadUrl"])
    assert response.status_code == 200
    return response.content


def given(content: bytes, **more: Any) -> Json:
    return {"content": base64.b64encode(content).decode(), **more}


async def imported(client: Client, content: bytes, **more: Any) -> Json:
    return (await client(IMPORT, input=given(content, **more)))["importTemplateBundle"]  # type: ignore[no-any-return]


async def trust(client: Client, public_key: str, name: str = "Headquarters") -> Json:
    found = await client(TRUST, input={"name": name, "publicKey": public_key})
    return found["trustPublisher"]["publisher"]  # type: ignore[no-any-return]


async def trusted_key(server: Server, there: Server) -> Json:
    """The key of the first installation, which the second trusts from now on."""
    key = (await server.client(KEY))["templateSigningKey"]
    if key is None:
        key = (await server.client(ROTATE))["rotateTemplateSigningKey"]["signingKey"]
    await trust(there.client, key["publicKey"])
    return key  # type: ignore[no-any-return]


async def there_is_none(there: Server, name: str) -> bool:
    return (await there.client(BY_NAME, name=name))["sessionTemplate"] is None


async def report_of(client: Client, template: str) -> Json:
    """The report of a test of a draft, when it is over."""
    test = (await client(TEST, id=template))["testSessionTemplate"]["test"]["id"]
    async with asyncio.timeout(60):
        while True:
            report = (await client(REPORT, id=test))["templateTest"]
            if report["status"] not in ("QUEUED", "RUNNING"):
                return report  # type: ignore[no-any-return]
            await asyncio.sleep(0.2)


async def test_a_template_goes_to_another_installation_and_is_tested_there(server: Server, there: Server) -> None:
    template = await published(server.client, SPEC, SPEC | {"title": "Two"}, title="For others")
    made = await server.client(EXPORT, input={"templateId": template["id"], "versions": [2, 1, 2]})
    bundle = made["exportTemplateBundle"]["bundle"]
    assert bundle["fileName"] == f"{template['name']}-v1-v2.qdtemplate"
    async with httpx.AsyncClient() as http:
        response = await http.get(bundle["downloadUrl"])
        again = await http.get(bundle["downloadUrl"])
    content = response.content
    assert content == again.content
    assert len(content) == bundle["size"]
    assert "attachment" in response.headers["content-disposition"]
    assert "no-store" in response.headers["cache-control"]

    # Nobody there trusts it yet.
    refused = await there.client.refused(IMPORT, input=given(content))
    assert refused.codes == ["FORBIDDEN"]
    assert refused.extensions["fingerprint"] == bundle["fingerprint"]
    assert await there_is_none(there, template["name"])
    key = (await server.client(KEY))["templateSigningKey"]
    assert key["fingerprint"] == bundle["fingerprint"]
    publisher = await trust(there.client, key["publicKey"])
    assert publisher["fingerprint"] == key["fingerprint"]

    found = await imported(there.client, content)
    result, origin = found["result"], found["origin"]
    assert (result["action"], result["template"]["title"]) == ("CREATED", "For others")
    assert result["template"]["draft"]["specJson"] == SPEC | {"title": "Two"}
    assert (origin["publisher"], origin["version"], origin["bundleSha256"]) == ("Headquarters", 2, bundle["sha256"])
    assert origin["digest"] == result["digest"] == result["template"]["draft"]["digest"]
    # It is a draft: what was tested elsewhere was not tested here.
    assert result["template"]["latestVersion"] == 0
    asked = {"templateId": result["template"]["id"], "digest": result["digest"], "message": "From headquarters"}
    assert (await there.client.refused(PUBLISH, input=asked)).codes == ["ILLEGAL_TRANSITION"]
    report = await report_of(there.client, result["template"]["id"])
    assert report["status"] == "PASSED", report
    assert (await there.client(PUBLISH, input=asked))["publishSessionTemplate"]["version"]["number"] == 1

    # Once more changes nothing, and is not told twice.
    before = (await there.client(AUDIT))["auditEvents"]["nodes"]
    again_found = await imported(there.client, content)
    assert again_found["result"]["action"] == "UNCHANGED"
    assert again_found["origin"] == origin
    assert (await there.client(AUDIT))["auditEvents"]["nodes"] == before
    assert [each["outcome"] for each in before[:2]] == ["SUCCEEDED", "REFUSED"]
    assert before[0]["details"]["sha256"] == bundle["sha256"]


async def test_a_version_is_chosen(server: Server, there: Server) -> None:
    await trusted_key(server, there)
    template = await published(server.client, {"title": "One"}, {"title": "Two"}, {"title": "Three"})
    content = await exported(server.client, template, 1, 3)
    found = await imported(there.client, content, version=1)
    assert found["result"]["template"]["draft"]["specJson"] == {"title": "One"}
    refused = await there.client.refused(IMPORT, input=given(content, version=2))
    assert (refused.codes, refused.extensions["field"]) == (["NOT_FOUND"], "version")
    found = await imported(there.client, content)
    assert (found["result"]["action"], found["result"]["changed"]) == ("UPDATED", ["spec.title"])
    assert (await there.client(BY_NAME, name=template["name"]))["sessionTemplate"]["origin"]["version"] == 3


async def test_many_imports_of_one_bundle_at_once_make_one_template(server: Server, there: Server) -> None:
    await trusted_key(server, there)
    content = await exported(server.client, await published(server.client, SPEC), 1)
    found = await asyncio.gather(*(imported(there.client, content) for _ in range(6)))
    actions = [each["result"]["action"] for each in found]
    assert (actions.count("CREATED"), actions.count("UNCHANGED")) == (1, 5)
    assert len({each["result"]["template"]["id"] for each in found}) == 1


async def test_what_was_tampered_with_is_refused_and_nothing_is_left_of_it(server: Server, there: Server) -> None:
    await trusted_key(server, there)
    template = await published(server.client, SPEC)
    content = await exported(server.client, template, 1)
    step = max(1, len(content) // 25)
    wrong = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(0, len(content), step)]
    wrong += [content[:-1], content[: len(content) // 2], content + b"\0", b"", b"PK", content + content]
    for each in wrong:
        refused = await there.client.refused(IMPORT, input=given(each))
        assert refused.codes == ["BAD_INPUT"]
        assert refused.extensions["field"] == "content"
    for text in ("no base64!", "é", "A"):
        assert (await there.client.refused(IMPORT, input={"content": text})).codes == ["BAD_INPUT"]
    assert (await there.client.refused(IMPORT, input={"content": "A" * 1_900_000})).codes == ["TOO_LARGE"]
    assert await there_is_none(there, template["name"])
    assert (await imported(there.client, content))["result"]["action"] == "CREATED"


async def test_trust_ends_at_once_and_what_was_imported_stays(server: Server, there: Server) -> None:
    key = await trusted_key(server, there)
    template = await published(server.client, SPEC)
    content = await exported(server.client, template, 1)
    await imported(there.client, content)
    publisher = await trust(there.client, key["publicKey"])
    await there.client(DISTRUST, id=publisher["id"])
    assert (await there.client.refused(IMPORT, input=given(content))).codes == ["FORBIDDEN"]
    assert not await there_is_none(there, template["name"])
    assert (await there.client.refused(DISTRUST, id=publisher["id"])).codes == ["NOT_FOUND"]
    assert (await there.client("query ($id: ID!) { node(id: $id) { id } }", id=publisher["id"]))["node"] is None


async def test_a_new_key_has_to_be_trusted_and_continues_its_publisher(server: Server, there: Server) -> None:
    old = await trusted_key(server, there)
    template = await published(server.client, {"title": "One"}, {"title": "Two"}, {"title": "Three"})
    first = await exported(server.client, template, 1)
    await imported(there.client, first)
    made = await server.client(EXPORT, input={"templateId": template["id"], "versions": [2]})
    new = (await server.client(ROTATE))["rotateTemplateSigningKey"]["signingKey"]
    assert new["fingerprint"] != old["fingerprint"]
    async with httpx.AsyncClient() as http:
        # The link promised a file that the old key has signed.
        assert (await http.get(made["exportTemplateBundle"]["bundle"]["downloadUrl"])).status_code == 409
    second = await exported(server.client, template, 2)
    refused = await there.client.refused(IMPORT, input=given(second))
    assert (refused.codes, refused.extensions["fingerprint"]) == (["FORBIDDEN"], new["fingerprint"])
    # Under another name it is somebody else, who does not replace this publisher's templates.
    await trust(there.client, new["publicKey"], "Somebody else")
    refused = await there.client.refused(IMPORT, input=given(second))
    assert refused.codes == ["CONFLICT"]
    assert "Headquarters" in refused.message
    await trust(there.client, new["publicKey"], "Headquarters")
    assert (await imported(there.client, second))["result"]["action"] == "UPDATED"
    # What the old key has signed is as good as before.
    assert (await imported(there.client, first))["result"]["action"] == "UPDATED"


async def test_nothing_that_was_made_here_is_lost(server: Server, there: Server) -> None:
    await trusted_key(server, there)
    template = await published(server.client, {"title": "One"}, {"title": "Two"})
    mine = await make_template(there.client, name=template["name"])
    first, second = await exported(server.client, template, 1), await exported(server.client, template, 2)
    refused = await there.client.refused(IMPORT, input=given(first))
    assert (refused.codes, refused.extensions["templateId"]) == (["CONFLICT"], mine["id"])
    await change_template(there.client, mine["id"], name=f"t-{uuid4().hex[:12]}")
    made = (await imported(there.client, first))["result"]["template"]
    await change_template(there.client, made["id"], spec={"title": "By hand"})
    refused = await there.client.refused(IMPORT, input=given(second))
    assert (refused.codes, refused.extensions["revision"]) == (["CONFLICT"], 2)
    refused = await there.client.refused(IMPORT, input=given(second, expectedRevision=1))
    assert refused.codes == ["CONFLICT"]
    found = await imported(there.client, second, expectedRevision=2)
    assert found["result"]["template"]["draft"]["specJson"] == {"title": "Two"}
    # What is published is not lost, so the draft may go.
    await change_template(there.client, made["id"], spec={"title": "By hand"})
    await publish_untested(there.client, made["id"])
    assert (await imported(there.client, second))["result"]["action"] == "UPDATED"


async def test_signing_takes_admin_of_the_template(people: People) -> None:
    template = await published(people.admin.client, SPEC, organizationLevel="EDIT")
    asked = {"templateId": template["id"], "versions": [1]}
    refused = await people.member.client.refused(EXPORT, input=asked)
    assert (refused.codes, refused.extensions["needs"]) == (["FORBIDDEN"], "ADMIN")
    assert (await people.viewer.client.refused(EXPORT, input=asked)).codes == ["FORBIDDEN"]
    assert (await people.stranger.client.refused(EXPORT, input=asked)).codes == ["NOT_FOUND"]
    for versions, code in (
        ([], "BAD_INPUT"),
        (list(range(1, 22)), "BAD_INPUT"),
        ([2], "NOT_FOUND"),
        ([-1], "NOT_FOUND"),
    ):
        refused = await people.admin.client.refused(EXPORT, input=asked | {"versions": versions})
        assert (refused.codes, refused.extensions["field"]) == ([code], "versions")


async def test_a_link_gives_the_bundle_that_it_promised_or_none(people: People, server: Server) -> None:
    template = await published(people.admin.client, {"systemPrompt": "sk-abcdefghijklmnopqrstuvwx"})
    made = await people.admin.client(EXPORT, input={"templateId": template["id"], "versions": [1]})
    bundle = made["exportTemplateBundle"]["bundle"]
    assert [finding["path"] for finding in bundle["findings"]] == ["spec.systemPrompt"]
    async with httpx.AsyncClient() as http:
        assert (await http.get(bundle["downloadUrl"])).status_code == 200
        assert (await http.head(bundle["downloadUrl"])).status_code == 405
        assert (await http.get(bundle["downloadUrl"] + "x")).status_code == 404
        assert (await http.get(f"{server.base}/template-bundles/nothing")).status_code == 404
        await change_template(people.admin.client, template["id"], title="Another one")
        assert (await http.get(bundle["downloadUrl"])).status_code == 409


async def test_a_link_ends_with_the_token_that_asked_for_it(people: People, server: Server) -> None:
    template = await published(people.admin.client, SPEC)
    made = await people.admin.client(
        'mutation { createAccessToken(input: {name: "passing"}) { secret accessToken { id } } }'
    )
    passing = server.as_(made["createAccessToken"]["secret"])
    bundle = await passing(EXPORT, input={"templateId": template["id"], "versions": [1]})
    revoke = "mutation ($id: ID!) { revokeAccessToken(input: {accessTokenId: $id}) { accessToken { id } } }"
    await people.admin.client(revoke, id=made["createAccessToken"]["accessToken"]["id"])
    async with httpx.AsyncClient() as http:
        response = await http.get(bundle["exportTemplateBundle"]["bundle"]["downloadUrl"])
    assert response.status_code == 404


async def test_only_admins_say_whom_to_trust(people: People) -> None:
    key = "ed25519:" + base64.b64encode(bytes(range(32))).decode()
    for person in (people.member, people.viewer):
        asked = {"name": "Friends", "publicKey": key}
        assert (await person.client.refused(TRUST, input=asked)).codes == ["FORBIDDEN"]
        assert (await person.client.refused(ROTATE)).codes == ["FORBIDDEN"]
    first = await trust(people.admin.client, f" {key}\n", "Friends")
    assert first["addedBy"]["name"] == people.admin.name
    assert await trust(people.admin.client, key, "  Friends ") == first
    renamed = await trust(people.admin.client, key, "Old friends")
    assert (renamed["id"], renamed["name"]) == (first["id"], "Old friends")
    listed = "{ trustedPublishers(first: 100) { nodes { id name } } }"
    names = {each["id"]: each["name"] for each in (await people.viewer.client(listed))["trustedPublishers"]["nodes"]}
    assert names[first["id"]] == "Old friends"
    assert first["id"] not in str(await people.stranger.client(listed))
    assert (await people.stranger.client.refused(DISTRUST, id=first["id"])).codes == ["NOT_FOUND"]
    assert (await people.member.client.refused(DISTRUST, id=first["id"])).codes == ["FORBIDDEN"]
    for name, public, field in (
        ("", key, "name"),
        ("x" * 101, key, "name"),
        ("a\u202eb", key, "name"),
        ("Friends", "ed25519:AAAA", "publicKey"),
        ("Friends", "", "publicKey"),
        ("Friends", "x" * 10_000, "publicKey"),
    ):
        refused = await people.admin.client.refused(TRUST, input={"name": name, "publicKey": public})
        assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], field)
    unsure = "mutation { rotateTemplateSigningKey(input: {confirm: false}) { signingKey { fingerprint } } }"
    assert (await people.admin.client.refused(unsure)).codes == ["BAD_INPUT"]


async def test_each_organisation_has_a_key_of_its_own_and_nobody_reads_its_secret_half(people: People) -> None:
    ours = (await people.admin.client(ROTATE))["rotateTemplateSigningKey"]["signingKey"]
    theirs = (await people.stranger.client(ROTATE))["rotateTemplateSigningKey"]["signingKey"]
    assert ours["publicKey"] != theirs["publicKey"]
    assert (await people.viewer.client(KEY))["templateSigningKey"]["fingerprint"] == ours["fingerprint"]
    fields = '{ __type(name: "TemplateSigningKey") { fields { name } } }'
    names = [field["name"] for field in (await people.admin.client(fields))["__type"]["fields"]]
    assert names == ["publicKey", "fingerprint", "createdAt"]
