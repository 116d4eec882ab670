"""The life of a template, from nothing to a version that is rolled back, and of a session that goes on through it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.app.conftest import People
from tests.app.newcomers import newcomer
from tests.app.test_template_starting import until_done
from tests.app.test_template_tests import outcome
from tests.app.test_template_tests import start as start_test
from tests.app.test_templates import refusal
from tests.clients_of_graph import Client, Json
from tests.talking import asks, decide, following, history, send
from tests.templating import PUBLISH, ROLLBACK, change_template, make_template

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

SHARE = """
mutation ($input: ShareSessionTemplateInput!) { shareSessionTemplate(input: $input) { grants { level } } }
"""
FORM = """
query ($id: ID!) { sessionTemplateForm(templateId: $id) { version { number } fields { name kind required default } } }
"""
START = """
mutation ($input: StartSessionInput!) { startSession(input: $input) { warnings session { id title systemPrompt } } }
"""
PIN = """
query ($id: ID!) {
  session(id: $id) {
    status title systemPrompt template { version { number digest } parameters newerVersion { number } }
  }
}
"""
HISTORY = """
query ($id: ID!) {
  sessionTemplate(id: $id) {
    latestVersion publishedVersion { number rolledBackTo { number } }
    versions { nodes {
      number message digest author { name } rolledBackTo { number } test { status } untestedReason
      usage { sessionCount successRate }
    } }
  }
}
"""
AUDIT = """
query ($id: ID!) { auditEvents(first: 50, filter: {targetId: $id}) { nodes { action outcome errorCode actorName } } }
"""
WAITING = """
playbook: Go on later
steps:
  - approve: Shall it go on?
  - tool: read_file
    arguments: {path: RULES.md}
"""


def spec(rules: str) -> Json:
    return {
        "runtime": "script",
        "systemPrompt": f"Keep to {rules}, {{{{ who }}}}.",
        "parameters": {
            "type": "object",
            "properties": {"who": {"type": "string", "title": "Whom to greet", "default": "all"}},
        },
        "title": "Greeting of {{ who }}",
        "playbook": "playbook: Read the rules\nsteps:\n  - say: Hello {{ who }}\n"
        "  - tool: read_file\n    arguments: {path: RULES.md}\n    expect: {contains: rules}\n",
        "seed": {"files": [{"path": "RULES.md", "content": f"The rules are {rules}.\n"}]},
        "test": {"checks": [{"answerContains": rules}, {"fileExists": "RULES.md"}], "timeoutSeconds": 60},
    }


async def test_a_template_lives_and_a_session_of_its_first_version_goes_on(people: People) -> None:
    author, user = people.member.client, (await newcomer(people.admin.client)).client

    # Made from scratch: nobody else knows of it, and nothing can be started yet.
    template = await make_template(author, name=f"life-{uuid4().hex[:8]}", title="Greetings", spec=spec("rules one"))
    id_ = template["id"]
    named = {"templateId": id_, "parameters": {"who": "Ada"}}
    assert (await refusal(user, START, input=named))["code"] == "NOT_FOUND"
    assert (await refusal(author, START, input=named))["code"] == "CONFLICT"

    # Tested, published, and given to somebody.
    one = await publish_tested(author, template, "The first one")
    assert (one["number"], one["untestedReason"]) == (1, None)
    me = (await user("{ viewer { user { id } } }"))["viewer"]["user"]["id"]
    await author(SHARE, input={"templateId": id_, "userIds": [me], "level": "USE"})

    # The second user asks for the form, and starts a session.
    form = (await user(FORM, id=id_))["sessionTemplateForm"]
    assert form["version"]["number"] == 1
    assert form["fields"] == [{"name": "who", "kind": "TEXT", "required": False, "default": "all"}]
    first = await started(user, named)
    assert (first["title"], first["systemPrompt"]) == ("Greeting of Ada", "Keep to rules one, Ada.")
    assert "The rules are rules one." in await said_in(user, first["id"])

    # It waits in the middle of a run while the template is revised, tested and published again.
    await send(user, first["id"], WAITING)
    async with following(user, first["id"]) as stream:
        await stream.until(asks)
    [asked] = (await history(user, first["id"]))["pendingApprovals"]["nodes"]
    revised = await change_template(author, id_, spec=spec("rules two"), expectedRevision=1)
    assert (await refusal(author, PUBLISH, input=publishing(revised)))["code"] == "ILLEGAL_TRANSITION"
    two = await publish_tested(author, revised, "Other rules")
    assert two["number"] == 2

    # It has kept its version, says that there is a newer one, and goes on with what it was started with.
    pinned = (await user(PIN, id=first["id"]))["session"]
    assert pinned["status"] == "WAITING"
    assert pinned["systemPrompt"] == "Keep to rules one, Ada."
    assert pinned["template"] == {
        "version": {"number": 1, "digest": one["digest"]},
        "parameters": {"who": "Ada"},
        "newerVersion": {"number": 2},
    }
    await decide(user, asked["id"], "APPROVE")
    done = await until_done(user, first["id"])
    assert [run["status"] for run in done["runs"]["nodes"]] == ["FINISHED", "FINISHED"]
    assert "The rules are rules one." in done["messages"]["nodes"][-1]["text"]

    # New sessions have the second version, until it is rolled back: then they have the first one again, as the third.
    second = await started(user, named)
    assert second["systemPrompt"] == "Keep to rules two, Ada."
    assert "The rules are rules two." in await said_in(user, second["id"])
    back = {"templateId": id_, "to": 1, "message": "The new rules were no good"}
    three = (await author(ROLLBACK, input=back))["rollbackSessionTemplate"]["version"]
    assert (three["number"], three["digest"], three["rolledBackTo"]) == (3, one["digest"], {"number": 1})
    third = await started(user, named)
    assert third["systemPrompt"] == "Keep to rules one, Ada."
    await until_done(user, third["id"])
    pins = [(await user(PIN, id=each["id"]))["session"]["template"] for each in (first, second, third)]
    assert [pin["version"]["number"] for pin in pins] == [1, 2, 3]
    assert [pin["newerVersion"] for pin in pins] == [{"number": 3}, {"number": 3}, None]

    # All of it stays to be seen.
    found = (await user(HISTORY, id=id_))["sessionTemplate"]
    assert (found["latestVersion"], found["publishedVersion"]["rolledBackTo"]) == (3, {"number": 1})
    assert [each["message"] for each in found["versions"]["nodes"]] == [
        "The first one",
        "Other rules",
        "The new rules were no good",
    ]
    assert [each["test"]["status"] for each in found["versions"]["nodes"]] == ["PASSED"] * 3
    assert [each["usage"] for each in found["versions"]["nodes"]] == [{"sessionCount": 1, "successRate": 1.0}] * 3
    records = (await people.admin.client(AUDIT, id=id_))["auditEvents"]["nodes"][::-1]
    done_ = [each["action"] for each in records if each["outcome"] == "SUCCEEDED"]
    for action in ("template.create", "template.share", "template.update", "template.publish", "template.rollback"):
        assert action in done_
    assert done_.count("template.publish") == 2
    assert [each["errorCode"] for each in records if each["outcome"] == "REFUSED"] != []


async def publish_tested(client: Client, template: Json, message: str) -> Json:
    """The draft's next version, after a test of it that passed."""
    test = await outcome(client, (await start_test(client, template["id"]))["id"])
    assert (test["status"], test["digest"]) == ("PASSED", template["draft"]["digest"]), test["checks"]
    asked = publishing(template) | {"message": message}
    return (await client(PUBLISH, input=asked))["publishSessionTemplate"]["version"]  # type: ignore[no-any-return]


def publishing(template: Json) -> dict[str, Any]:
    return {"templateId": template["id"], "digest": template["draft"]["digest"]}


async def started(client: Client, named: dict[str, Any]) -> Json:
    return (await client(START, input=named))["startSession"]["session"]  # type: ignore[no-any-return]


async def said_in(client: Client, session: str) -> str:
    """All that was said in a session, once its runs have ended."""
    return "\n".join(message["text"] for message in (await until_done(client, session))["messages"]["nodes"])
