"""All roles with all that lets somebody do something with a template: every door agrees on what it is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from core.ids import decode
from core.permissions import Role
from tests.app.conftest import People
from tests.app.newcomers import newcomer
from tests.app.test_sharing_matrix import code_of, database_of
from tests.clients_of_graph import Client, Refused
from tests.conftest import Server
from tests.sharing_help import UPDATE_GRANT, account, part, revoke, team_of
from tests.templating import GET, UPDATE, change_template, make_template, publish_untested

pytestmark = pytest.mark.anyio

LEVELS = [None, "VIEW", "USE", "EDIT", "ADMIN"]
# What each way gives to somebody who is no admin of the organisation.
GIVES = {
    "owner": "ADMIN",
    "owner's team": "ADMIN",
    "none": None,
    "VIEW": "VIEW",
    "USE": "USE",
    "EDIT": "EDIT",
    "ADMIN": "ADMIN",
    "USE by team": "USE",
    "ADMIN by team": "ADMIN",
    "VIEW, and EDIT by team": "EDIT",
    "expired": None,
    "revoked": None,
    "organisation VIEW": "VIEW",
    "organisation USE": "USE",
    "organisation EDIT": "EDIT",
    "organisation VIEW, and USE": "USE",
}
SHARE = """
mutation ($input: ShareSessionTemplateInput!) {
  shareSessionTemplate(input: $input) {
    template { id } grants { id level note user { id } team { id } session { id } template { id } }
  }
}
"""
READ = """
query ($template: ID!, $version: ID!, $name: String!) {
  sessionTemplate(id: $template) { id access { level } versions { nodes { id } } }
  named: sessionTemplate(name: $name) { id }
  node(id: $template) { id }
  version: node(id: $version) { ... on SessionTemplateVersion { id template { id } } }
}
"""
LIST = """
query ($label: String!, $level: TemplateLevel!) {
  sessionTemplates(first: 100, filter: {labels: [{name: "matrix", value: $label}], level: $level}) {
    totalCount nodes { id }
  }
}
"""
START = "mutation ($input: StartSessionInput!) { startSession(input: $input) { session { id } } }"
SET = """
mutation ($input: SetSessionTemplateVisibilityInput!) {
  setSessionTemplateVisibility(input: $input) { template { organizationLevel } }
}
"""


async def share(client: Client, template: str, *users: str, level: str = "VIEW", **more: object) -> list[dict]:  # type: ignore[type-arg]
    given = {"templateId": template, "userIds": list(users), "level": level} | more
    return (await client(SHARE, input=given))["shareSessionTemplate"]["grants"]  # type: ignore[no-any-return]


async def make(people: People, server: Server, one: str, team: str, way: str, label: str) -> dict:  # type: ignore[type-arg]
    """A template of the member's that somebody may do something with in this way, with one version."""
    owner = people.member.client
    everybody = way.split(",")[0].partition(" ")[2] if way.startswith("organisation") else None
    made = await make_template(
        owner, title=way, labels=[{"name": "matrix", "value": label}], organizationLevel=everybody, spec={}
    )
    version = await publish_untested(people.admin.client, made["id"])
    for step in way.split(", "):
        level, _, by_team = step.removeprefix("and ").partition(" ")
        if step in ("owner", "owner's team", "expired"):
            async with database_of(server) as connection:
                if step == "owner":
                    change, value = "UPDATE session_templates SET owner_id = $2 WHERE id = $1", decode("usr", one)
                elif step == "owner's team":
                    change, value = (
                        "UPDATE session_templates SET owner_team_id = $2 WHERE id = $1",
                        decode("team", team),
                    )
                else:
                    [grant] = await share(owner, made["id"], one, level="ADMIN")
                    change = (
                        "UPDATE grants SET expires_at = now() - $2::int * interval '1 minute' WHERE resource_id = $1"
                    )
                    value = 1
                await connection.execute(change, decode("tpl", made["id"]), value)
        elif step == "revoked":
            [grant] = await share(owner, made["id"], one, level="ADMIN")
            await revoke(owner, grant["id"])
        elif level in LEVELS and by_team:
            await share(owner, made["id"], level=level, teamIds=[team])
        elif level in LEVELS:
            await share(owner, made["id"], one, level=level)
    return made | {"version": version["id"]}


@pytest.mark.parametrize("role", list(Role))
async def test_every_door_agrees_on_what_is_given(people: People, server: Server, role: Role) -> None:
    label = uuid4().hex
    one = people.admin if role is Role.OWNER else await account(people.admin.client, role)
    team = await team_of(people.admin.client, one.id)
    rows = await asyncio.gather(*(make(people, server, one.id, team, way, label) for way in GIVES))
    made = dict(zip(GIVES, rows, strict=True))
    admin = role in (Role.OWNER, Role.ADMIN)
    levels = {way: "ADMIN" if admin else level for way, level in GIVES.items()}

    for wanted in LEVELS[1:]:
        listed = (await one.client(LIST, label=label, level=wanted))["sessionTemplates"]
        enough = {made[way]["id"] for way, level in levels.items() if LEVELS.index(level) >= LEVELS.index(wanted)}
        assert {node["id"] for node in listed["nodes"]} == enough, wanted
        assert listed["totalCount"] == len(enough)

    for way, template in made.items():
        ids = {"template": template["id"], "version": template["version"], "name": template["name"]}
        found = await one.client(READ, **ids)
        if levels[way] is None:
            assert found == {"sessionTemplate": None, "named": None, "node": None, "version": None}, way
        else:
            assert found["sessionTemplate"]["access"]["level"] == levels[way], way
            assert found["sessionTemplate"]["versions"]["nodes"] == [{"id": template["version"]}], way
            assert found["version"] == {"id": template["version"], "template": {"id": template["id"]}}, way

    # The least first, for each does something to the template.
    for needs, document, input in (
        ("USE", START, {}),
        ("EDIT", UPDATE, {"summary": "Changed"}),
        ("ADMIN", SHARE, {"userIds": [people.colleague.id], "level": "VIEW"}),
        ("ADMIN", SET, {"organizationLevel": "EDIT"}),
    ):
        codes = await asyncio.gather(
            *(code_of(one.client, document, input={"templateId": made[way]["id"]} | input) for way in GIVES)
        )
        for way, code in zip(GIVES, codes, strict=True):
            level = levels[way]
            if role is Role.VIEWER:
                expected = "FORBIDDEN"
            elif LEVELS.index(level) >= LEVELS.index(needs):
                expected = None
            else:
                expected = "NOT_FOUND" if level is None or needs == "USE" else "FORBIDDEN"
            assert code == expected, (way, needs, document)


async def test_grants_to_templates_are_shown_changed_revoked_and_recorded(people: People) -> None:
    owner, admin = people.member.client, people.admin.client
    one = await newcomer(admin)
    template = await make_template(owner, title="Handbook")
    given = {"level": "VIEW", "note": "Have a look"}
    [grant] = await share(owner, template["id"], one.id, **given)
    assert (grant["level"], grant["session"], grant["template"]) == ("VIEW", None, {"id": template["id"]})
    inbox = "{ viewer { notifications { nodes { title body subject { id } } } } }"
    [note] = (await one.client(inbox))["viewer"]["notifications"]["nodes"]
    assert note["title"] == "Test Member lets you see the template “Handbook”"
    assert (note["body"], note["subject"]) == ("Have a look", {"id": template["id"]})
    mine = "query ($id: ID!) { sessionTemplate(id: $id) { grants { totalCount nodes { id level } } } }"
    assert (await one.client(mine, id=template["id"]))["sessionTemplate"]["grants"]["totalCount"] == 1

    changed = (await owner(UPDATE_GRANT, input={"grantId": grant["id"], "level": "EDIT"}))["updateGrant"]["grant"]
    assert changed["level"] == "EDIT"
    assert (await change_template(one.client, template["id"], title="Handbook 2"))["title"] == "Handbook 2"
    with pytest.raises(Refused, match="The levels of a template are VIEW, USE, EDIT, ADMIN, not WRITE"):
        await owner(UPDATE_GRANT, input={"grantId": grant["id"], "level": "WRITE"})
    # Nobody gives themself more, neither as an editor nor as one of those who administer it.
    with pytest.raises(Refused, match="this takes ADMIN"):
        await one.client(UPDATE_GRANT, input={"grantId": grant["id"], "level": "ADMIN"})
    await share(owner, template["id"], people.colleague.id, level="ADMIN")
    with pytest.raises(Refused, match="You cannot give access to yourself"):
        await share(people.colleague.client, template["id"], people.colleague.id, level="ADMIN")

    await revoke(owner, grant["id"])
    assert (await one.client(GET, id=template["id"]))["sessionTemplate"] is None
    records = """
    query ($id: ID!) {
      auditEvents(filter: {targetId: $id}) { nodes { action targetKind outcome details sessionId } }
    }
    """
    found = (await admin(records, id=grant["id"]))["auditEvents"]["nodes"]
    assert [each["action"] for each in found] == ["grant.revoke", "grant.update", "grant.create"]
    assert all(each["details"] == {"templateId": template["id"]} and each["sessionId"] is None for each in found)


async def test_what_a_team_gives_ends_with_the_membership(people: People) -> None:
    one = await newcomer(people.admin.client)
    team = await team_of(people.admin.client, one.id)
    template = await make_template(people.member.client)
    await share(people.member.client, template["id"], level="EDIT", teamIds=[team])
    await change_template(one.client, template["id"], title="Ours")
    await part(people.admin.client, team, one.id)
    assert (await one.client(GET, id=template["id"]))["sessionTemplate"] is None


async def test_access_to_a_template_expires_by_itself_and_is_recorded(people: People, server: Server) -> None:
    one = await newcomer(people.admin.client)
    template = await make_template(people.member.client)
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    [grant] = await share(people.member.client, template["id"], one.id, expiresAt=soon)
    async with database_of(server) as connection:
        await connection.execute("UPDATE grants SET expires_at = now() WHERE id = $1", decode("gra", grant["id"]))
    assert (await one.client(GET, id=template["id"]))["sessionTemplate"] is None
    records = "query ($id: ID!) { auditEvents(filter: {targetId: $id}) { nodes { action } } }"
    for _ in range(100):
        found = (await people.admin.client(records, id=grant["id"]))["auditEvents"]["nodes"]
        if found[0]["action"] == "grant.expire":
            return
        await asyncio.sleep(0.1)
    pytest.fail("no worker has told of the end")


async def test_who_gets_a_template_loses_the_grant_to_it(people: People) -> None:
    one = await newcomer(people.admin.client)
    template = await make_template(people.member.client)
    await share(people.member.client, template["id"], one.id, level="EDIT")
    transfer = """
    mutation ($input: TransferSessionTemplateInput!) {
      transferSessionTemplate(input: $input) { template { owner { id } } }
    }
    """
    await people.member.client(transfer, input={"templateId": template["id"], "ownerId": one.id})
    await one.client(transfer, input={"templateId": template["id"], "ownerId": people.member.id})
    assert (await one.client(GET, id=template["id"]))["sessionTemplate"] is None


async def test_everybody_never_administers(people: People) -> None:
    template = await make_template(people.member.client)
    with pytest.raises(Refused, match="Give ADMIN to people and teams"):
        await people.member.client(SET, input={"templateId": template["id"], "organizationLevel": "ADMIN"})
