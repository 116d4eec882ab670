"""Monitors through the graph: made, tried, changed, followed, silenced and acknowledged, each as one may."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.web import WebApp
from app.wiring import Program, serving
from core import db
from core.ids import decode, encode
from core.permissions import Permission, Role
from core.settings import Settings
from services.identity.tokens import create_access_token
from tests.app.conftest import served
from tests.clients_of_graph import Client, Json
from tests.conftest import environment_for, free_port, running
from tests.fakes.alert_receiver import AlertReceiver
from tests.fakes.puppet import wait_for
from tests.monitoring import ACKNOWLEDGE, CHANGES, INCIDENTS, MINUTE, NOON, at, calls, incidents, spend, told
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio

MONITOR = """
fragment Whole on Monitor {
  id name description metric filter { dimension values } groupBy windowSeconds forSeconds recovery noData
  renotifyEverySeconds severity labels { name value } evaluateEverySeconds status pausedReason state explanation
condition { kind text operator value unit comparedWith forSeconds sensitivity season trainingDays timezone hours ratio }
  owner { id } notifiedUsers { id } channels { id name }
  groups { nodes { state value measure explanation label { dimension value name } incident { id } } }
  history { totalCount nodes { at state changed value groupCount firingCount missed } }
  incidents { nodes { id state title } }
}
"""
CREATE = (
    MONITOR
    + """
mutation ($input: CreateMonitorInput!) { createMonitor(input: $input) { monitor { ...Whole } } }
"""
)
UPDATE = (
    MONITOR
    + """
mutation ($input: UpdateMonitorInput!) { updateMonitor(input: $input) { monitor { ...Whole } } }
"""
)
GET = MONITOR + "query ($id: ID!) { monitor(id: $id) { ...Whole } }"
LIST = "query ($filter: MonitorListFilter) { monitors(filter: $filter) { totalCount nodes { name state } } }"
MOVES = {
    name: f"mutation ($input: {kind}!) {{ {name}(input: $input) {{ monitor {{ status pausedReason state }} }} }}"
    for name in ("pauseMonitor", "resumeMonitor", "removeMonitor")
    for kind in ["PauseMonitorInput" if name == "pauseMonitor" else "MonitorInput"]
}
TRY = """
mutation ($input: MonitorInput!) { testMonitor(input: $input) {
  at windowStart windowEnd state groupsLeftOut explanation
  groups { state value measure explanation label { dimension value name } }
} }
"""
TEST_FIRE = """
mutation ($input: MonitorInput!) { testFireMonitor(input: $input) {
  notifiedUsers { id } deliveries { kind status lastError responseStatus channel { name } }
} }
"""
SILENCE = """
mutation ($input: CreateSilenceInput!) { createSilence(input: $input) {
  silence { id reason everybody startsAt endsAt endedAt monitor { id } labels { name value } createdBy { id } }
} }
"""
END_SILENCE = "mutation ($input: EndSilenceInput!) { endSilence(input: $input) { silence { endedAt } } }"
CHANNEL = """
mutation ($input: CreateAlertChannelInput!) { createAlertChannel(input: $input) {
  secret channel { id name kind url status hasSecret }
} }
"""
NODE = "query ($id: ID!) { node(id: $id) { id __typename } }"


class Place:
    """A running web process in this one, and the people of its organisation."""

    def __init__(self, url: str, house: House) -> None:
        self.url, self.house = url, house

    async def client(self, role: Role, *scopes: Permission) -> Client:
        made = await create_access_token(
            self.house.actor(role), name="tests", scopes=[scope.value for scope in scopes] or None
        )
        return Client(self.url, made.secret)

    def id_of(self, role: Role) -> str:
        return encode("usr", self.house.users[role]["id"])


@pytest.fixture
async def place(database: Program) -> AsyncIterator[Place]:
    settings = database.parts.settings
    async with serving(database), served(WebApp(settings), settings) as base:
        yield Place(f"{base}/graphql", await a_house())


def above(value: float) -> Json:
    return {"threshold": {"operator": "GREATER", "value": value}}


async def create(client: Client, **given: Any) -> Json:
    """A monitor that is next evaluated at noon."""
    usual = {"name": "Calls", "metric": "tools.calls", "condition": above(5), "windowSeconds": 60}
    made = (await client(CREATE, input=usual | given))["createMonitor"]["monitor"]
    await db.execute("UPDATE monitors SET next_evaluation_at = $2 WHERE id = $1", decode("mon", made["id"]), NOON)
    return made  # type: ignore[no-any-return]


# -- making and changing


async def test_a_monitor_is_made_with_what_is_usual_and_read_back(place: Place) -> None:
    client = await place.client(Role.MEMBER)
    key = {"idempotencyKey": "once"}
    made = await create(client, **key)
    assert (await create(client, **key))["id"] == made["id"]
    assert made | {"id": ""} == {
        "id": "",
        "name": "Calls",
        "description": "",
        "metric": "tools.calls",
        "filter": [],
        "groupBy": None,
        "windowSeconds": 60,
        "forSeconds": 0,
        "recovery": None,
        "noData": "KEEP",
        "renotifyEverySeconds": None,
        "severity": "WARNING",
        "labels": [],
        "evaluateEverySeconds": 60,
        "status": "ACTIVE",
        "pausedReason": None,
        "state": "OK",
        "explanation": None,
        "condition": {
            "kind": "THRESHOLD",
            "text": "above 5",
            "operator": "GREATER",
            "value": 5,
            "unit": None,
            "comparedWith": None,
            "forSeconds": None,
            "sensitivity": None,
            "season": None,
            "trainingDays": None,
            "timezone": None,
            "hours": None,
            "ratio": None,
        },
        "owner": {"id": place.id_of(Role.MEMBER)},
        "notifiedUsers": [{"id": place.id_of(Role.MEMBER)}],
        "channels": [],
        "groups": {"nodes": []},
        "history": {"totalCount": 0, "nodes": []},
        "incidents": {"nodes": []},
    }
    assert (await client(NODE, id=made["id"]))["node"]["__typename"] == "Monitor"
    record = await db.fetchrow("SELECT * FROM audit_records WHERE action = 'monitor.create'")
    assert record["after"]["condition"] == {"kind": "THRESHOLD", "operator": "GREATER", "value": 5}
    for zone, said in (({}, "day"), ({"timezone": "Asia/Kolkata"}, "day (Asia/Kolkata)")):
        asks = (await create(client, windowSeconds=3600, condition={"anomaly": zone}))["condition"]
        assert (asks["timezone"], asks["text"].partition("usual ")[2]) == (zone.get("timezone", "UTC"), said)


async def test_everything_that_makes_no_sense_is_said_at_once(place: Place) -> None:
    client = await place.client(Role.MEMBER)
    given: Json = {
        "name": " ",
        "metric": "tools.nonsense",
        "condition": {"threshold": {"operator": "LESS", "value": 1e300}},
        "windowSeconds": 1,
        "forSeconds": -1,
        "evaluateEverySeconds": 9,
        "renotifyEverySeconds": 1,
        "labels": [{"name": "severity", "value": "x"}, {"name": "a b", "value": ""}],
    }
    refused = await client.refused(CREATE, input=given)
    assert refused.codes == ["BAD_INPUT"]
    assert [one["field"] for one in refused.extensions["fields"]] == [
        "name",
        "condition.threshold.value",
        "labels",
        "labels",
        "labels",
        "windowSeconds",
        "forSeconds",
        "evaluateEverySeconds",
        "renotifyEverySeconds",
        "metric",
    ]
    usual = {"name": "Calls", "metric": "tools.calls", "condition": above(5)}
    for wrong, code, field in (
        ({"condition": {}}, "BAD_INPUT", "condition"),
        ({"condition": above(1) | {"absence": {"forSeconds": 60}}}, "BAD_INPUT", "condition"),
        ({"condition": {"anomaly": {"timezone": "Mars"}}}, "BAD_INPUT", "condition.anomaly.timezone"),
        ({"groupBy": "weather"}, "BAD_INPUT", "groupBy"),
        ({"groupBy": "session"}, "BAD_INPUT", "groupBy"),
        ({"groupBy": "'; DROP TABLE monitors; --"}, "BAD_INPUT", "groupBy"),
        ({"filter": [{"dimension": "tool", "values": []}]}, "BAD_INPUT", "filter"),
        ({"filter": [{"dimension": "user", "values": ["nobody"]}]}, "BAD_INPUT", "filter"),
        ({"filter": [{"dimension": "tool", "values": ["a"]}] * 2}, "BAD_INPUT", "filter"),
        ({"notifyUserIds": ["usr_nonsense"]}, "BAD_INPUT", "notifyUserIds"),
        ({"notifyUserIds": ["usr_01m84yacwrezq9epvt8spm23ex"]}, "NOT_FOUND", "notifyUserIds"),
        ({"channelIds": ["alc_01m84yacwrezq9epvt8spm23ex"]}, "NOT_FOUND", "channelIds"),
        ({"channelIds": ["usr_01m84yacwrezq9epvt8spm23ex"]}, "NOT_FOUND", "channelIds"),
    ):
        refused = await client.refused(CREATE, input=usual | wrong)
        found = refused.extensions.get("field") or refused.extensions["fields"][0]["field"]
        assert (refused.codes, found) == ([code], field), wrong
    assert await db.fetchval("SELECT count(*) FROM monitors") == 0


async def test_what_tells_people_apart_is_told_to_its_owner_and_admins_only(place: Place) -> None:
    client = await place.client(Role.ADMIN)
    given = {"metric": "cost.usd", "groupBy": "user", "condition": above(10)}
    refused = await client.refused(CREATE, input={"name": "Cost", "notifyUserIds": [place.id_of(Role.VIEWER)]} | given)
    assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "notifyUserIds")
    made = await create(client, **given, notifyUserIds=[place.id_of(Role.OWNER)])
    assert made["notifiedUsers"] == [{"id": place.id_of(Role.OWNER)}]
    member = await place.client(Role.MEMBER)
    other = [{"dimension": "user", "values": [place.id_of(Role.OWNER)]}]
    refused = await member.refused(CREATE, input={"name": "Spy", "filter": other} | given | {"groupBy": None})
    assert refused.codes == ["FORBIDDEN"]
    # Nobody's facts are not somebody's; those who are in no team may be one person.
    for each in (client, member):
        nobody = [{"dimension": "user", "values": [None]}]
        await create(each, filter=nobody)
    none = [{"dimension": "team", "values": [None]}]
    refused = await client.refused(CREATE, input={"name": "Spy", "filter": none} | given | {"groupBy": None})
    assert refused.codes == ["BAD_INPUT"]


async def test_changes_keep_what_is_left_out_and_null_takes_away(place: Place) -> None:
    client = await place.client(Role.MEMBER)
    made = await create(
        client,
        recovery=3,
        renotifyEverySeconds=600,
        filter=[{"dimension": "tool", "values": ["time.now", None]}],
        labels=[{"name": "team", "value": "blue"}],
    )

    async def change(**given: Any) -> Json:
        changed = await client(UPDATE, input={"monitorId": made["id"]} | given)
        return changed["updateMonitor"]["monitor"]  # type: ignore[no-any-return]

    named = await change(name="Many calls")
    assert named | {"name": "Calls"} == made
    cleared = await change(recovery=None, renotifyEverySeconds=None, filter=None, labels=None, groupBy=None)
    assert cleared == named | {"recovery": None, "renotifyEverySeconds": None, "filter": [], "labels": []}
    absent = await change(condition={"absence": {"forSeconds": 600}})
    assert (absent["condition"]["kind"], absent["condition"]["forSeconds"]) == ("ABSENCE", 600)
    refused = await client.refused(UPDATE, input={"monitorId": made["id"], "recovery": 1, "windowSeconds": 5})
    assert {one["field"] for one in refused.extensions["fields"]} == {"recovery", "windowSeconds"}
    actions = await db.fetch("SELECT action FROM audit_records WHERE action LIKE 'monitor.%' ORDER BY at, id")
    assert [row["action"] for row in actions] == ["monitor.create", *["monitor.update"] * 3]


async def test_pausing_resuming_and_removing(place: Place) -> None:
    client = await place.client(Role.MEMBER)
    made = await create(client)
    await calls(place.house, 6, NOON)
    await at(NOON)
    input_ = {"monitorId": made["id"]}
    paused = (await client(MOVES["pauseMonitor"], input=input_ | {"reason": "Holidays"}))["pauseMonitor"]["monitor"]
    assert paused == {"status": "PAUSED", "pausedReason": "Holidays", "state": "OK"}
    [incident] = (await client(INCIDENTS))["incidents"]["nodes"]
    assert (incident["state"], incident["timeline"]["nodes"][-1]["note"]) == ("RESOLVED", "The monitor was paused.")
    assert (await client(LIST, filter={"status": "PAUSED"}))["monitors"]["totalCount"] == 1
    resumed = (await client(MOVES["resumeMonitor"], input=input_))["resumeMonitor"]["monitor"]
    assert resumed == {"status": "ACTIVE", "pausedReason": None, "state": "OK"}
    await client(MOVES["removeMonitor"], input=input_)
    assert (await client(GET, id=made["id"]))["monitor"] is None
    assert (await client.refused(MOVES["removeMonitor"], input=input_)).codes == ["NOT_FOUND"]
    [incident] = (await client(INCIDENTS))["incidents"]["nodes"]
    assert incident["monitor"] is None, "its incidents can still be read"


# -- who may see and do what


async def test_members_see_their_own_and_what_tells_them_admins_all_strangers_nothing(place: Place) -> None:
    member, admin, viewer = [await place.client(role) for role in (Role.MEMBER, Role.ADMIN, Role.VIEWER)]
    elsewhere = await a_house("Elsewhere")
    stranger = await Place(place.url, elsewhere).client(Role.OWNER)
    mine = await create(member, name="Mine")
    theirs = await create(admin, name="Theirs")
    tells = await create(admin, name="Tells", notifyUserIds=[place.id_of(Role.MEMBER), place.id_of(Role.VIEWER)])
    await calls(place.house, 6, NOON)
    await at(NOON)

    async def names(client: Client) -> list[str]:
        return [one["name"] for one in (await client(LIST))["monitors"]["nodes"]]

    assert await names(admin) == ["Tells", "Theirs", "Mine"]
    assert await names(member) == ["Tells", "Mine"]
    assert await names(viewer) == ["Tells"]
    assert await names(stranger) == []
    [seen] = (await viewer(INCIDENTS))["incidents"]["nodes"]
    assert seen["title"] == "Tells"
    for client, id_ in ((member, theirs["id"]), (viewer, mine["id"]), (stranger, mine["id"])):
        assert (await client(GET, id=id_))["monitor"] is None
        assert (await client(NODE, id=id_))["node"] is None
    pause = MOVES["pauseMonitor"]
    assert (await member.refused(pause, input={"monitorId": theirs["id"]})).codes == ["NOT_FOUND"]
    assert (await member.refused(pause, input={"monitorId": tells["id"]})).codes == ["FORBIDDEN"]
    assert (await viewer.refused(pause, input={"monitorId": tells["id"]})).codes == ["FORBIDDEN"]
    assert (await stranger.refused(ACKNOWLEDGE, input={"incidentId": seen["id"]})).codes == ["NOT_FOUND"]
    assert (await viewer.refused(CREATE, input={"name": "x", "metric": "x", "condition": above(1)})).codes == [
        "FORBIDDEN"
    ]
    assert (await admin(pause, input={"monitorId": mine["id"]}))["pauseMonitor"]["monitor"]["status"] == "PAUSED"
    narrow = await place.client(Role.ADMIN, Permission.SESSIONS_READ)
    assert (await narrow.refused(LIST)).codes == ["FORBIDDEN"]


async def test_channels_are_their_owner_s_and_the_secret_is_shown_once(place: Place) -> None:
    member, admin = await place.client(Role.MEMBER), await place.client(Role.ADMIN)
    input_ = {"name": "Hook", "kind": "WEBHOOK", "url": "http://127.0.0.1:9/hook", "idempotencyKey": "k"}
    made = (await member(CHANNEL, input=input_))["createAlertChannel"]
    assert made["secret"].startswith("whsec_")
    again = (await member(CHANNEL, input=input_))["createAlertChannel"]
    assert (again["channel"]["id"], again["secret"]) == (made["channel"]["id"], None)
    mine = "{ alertChannels { nodes { id name url hasSecret } } }"
    assert [one["name"] for one in (await member(mine))["alertChannels"]["nodes"]] == ["Hook"]
    theirs = (await admin(CHANNEL, input=input_ | {"name": "Admin's"}))["createAlertChannel"]["channel"]
    assert len((await admin(mine))["alertChannels"]["nodes"]) == 2
    refused = await member.refused(
        CREATE, input={"name": "x", "metric": "tools.calls", "condition": above(1), "channelIds": [theirs["id"]]}
    )
    assert (refused.codes, refused.extensions["field"]) == (["NOT_FOUND"], "channelIds")
    update = (
        "mutation ($input: UpdateAlertChannelInput!) { updateAlertChannel(input: $input) { channel { name status } } }"
    )
    changed = await member(update, input={"channelId": made["channel"]["id"], "name": "H", "enabled": False})
    assert changed["updateAlertChannel"]["channel"] == {"name": "H", "status": "DISABLED"}
    refused = await member.refused(update, input={"channelId": made["channel"]["id"], "url": "ftp://x", "name": ""})
    assert {one["field"] for one in refused.extensions["fields"]} == {"name", "url"}
    remove = "mutation ($input: AlertChannelInput!) { removeAlertChannel(input: $input) { channel { id } } }"
    assert (await member.refused(remove, input={"channelId": theirs["id"]})).codes == ["NOT_FOUND"]
    await member(remove, input={"channelId": made["channel"]["id"]})
    assert (await member(mine))["alertChannels"]["nodes"] == []


# -- incidents


async def test_an_incident_with_its_timeline_group_labels_and_acknowledgement(place: Place) -> None:
    client = await place.client(Role.MEMBER)
    made = await create(
        client, groupBy="tool", labels=[{"name": "team", "value": "blue"}], severity="CRITICAL", windowSeconds=120
    )
    await calls(place.house, 6, NOON)
    await at(NOON)
    await calls(place.house, 3, NOON + MINUTE)
    await at(NOON + MINUTE)
    found = await client(INCIDENTS, filter={"state": "FIRING", "severity": ["CRITICAL"], "acknowledged": False})
    [incident] = found["incidents"]["nodes"]
    assert incident | {"id": "", "labels": [], "timeline": {}} == {
        "id": "",
        "title": "Calls (tool time.now)",
        "summary": "tools.calls is 9 over 2 min; the monitor asks for above 5.",
        "severity": "CRITICAL",
        "state": "FIRING",
        "value": 9,
        "openingValue": 6,
        "silenced": False,
        "toldCount": 1,
        "group": {"dimension": "tool", "value": "time.now", "name": "time.now"},
        "labels": [],
        "monitor": {"id": made["id"]},
        "acknowledgedBy": None,
        "timeline": {},
        "deliveries": {"nodes": []},
    }
    assert {one["name"]: one["value"] for one in incident["labels"]} == {
        "alertname": "Calls",
        "metric": "tools.calls",
        "monitor": made["id"],
        "severity": "critical",
        "team": "blue",
        "tool": "time.now",
    }
    assert [(one["kind"], one["value"]) for one in incident["timeline"]["nodes"]] == [
        ("OPENED", 6),
        ("TOLD", 6),
        ("VALUE", 9),
    ]
    whole = (await client(GET, id=made["id"]))["monitor"]
    assert whole["groups"]["nodes"] == [
        {
            "state": "FIRING",
            "value": 9,
            "measure": 9,
            "explanation": None,
            "label": {"dimension": "tool", "value": "time.now", "name": "time.now"},
            "incident": {"id": incident["id"]},
        }
    ]
    assert [(one["state"], one["value"], one["changed"]) for one in whole["history"]["nodes"]] == [
        ("FIRING", 9, False),
        ("FIRING", 6, True),
    ]
    done = await client(ACKNOWLEDGE, input={"incidentId": incident["id"], "note": "On it"})
    assert done["acknowledgeIncident"]["incident"]["acknowledgedBy"] == {"id": place.id_of(Role.MEMBER)}
    await at(NOON + 5 * MINUTE)
    [over] = (await client(INCIDENTS, filter={"monitorId": made["id"]}))["incidents"]["nodes"]
    assert [one["kind"] for one in over["timeline"]["nodes"]][-2:] == ["ACKNOWLEDGED", "RESOLVED"]
    inbox = await client("{ viewer { notifications { nodes { kind title subject { id __typename } } } } }")
    assert inbox["viewer"]["notifications"]["nodes"] == [
        {"kind": "MONITOR", "title": title, "subject": {"id": incident["id"], "__typename": "MonitorIncident"}}
        for title in ("Resolved: Calls (tool time.now)", "Firing: Calls (tool time.now)")
    ]


async def test_incidents_are_live_from_any_cursor_and_only_those_that_one_sees(place: Place) -> None:
    member, admin = await place.client(Role.MEMBER), await place.client(Role.ADMIN)
    await create(member)
    hidden = await create(admin, name="Hidden", windowSeconds=120)
    async with admin.stream(CHANGES) as all_, member.stream(CHANGES) as mine:
        # What is written before the streams stand is not theirs.
        await asyncio.sleep(0.3)
        await calls(place.house, 6, NOON)
        await at(NOON)
        both = [(await all_.next())["incidentChanges"] for _ in range(2)]
        first = (await mine.next())["incidentChanges"]
        assert {one["incident"]["state"] for one in both} == {"FIRING"}
        await at(NOON + MINUTE)
        second = (await mine.next())["incidentChanges"]
        assert (second["incident"]["id"], second["incident"]["state"]) == (first["incident"]["id"], "RESOLVED")
    async with member.stream(CHANGES, after=first["cursor"]) as again:
        assert (await again.next())["incidentChanges"] == second
    [incident] = await incidents(decode("mon", hidden["id"]))
    assert encode("inc", incident["id"]) in {one["incident"]["id"] for one in both}
    async with member.socket() as socket:
        refused = await socket.subscribe(CHANGES, after="nonsense")
        with pytest.raises(AssertionError, match="BAD_INPUT"):
            await refused.next()


async def test_silences_through_the_graph(place: Place) -> None:
    admin, member = await place.client(Role.ADMIN), await place.client(Role.MEMBER)
    made = await create(admin, labels=[{"name": "team", "value": "blue"}])
    soon = datetime.now(UTC) + timedelta(hours=1)
    for given, field in (
        ({"reason": "x", "endsAt": soon.isoformat()}, "labels"),
        ({"monitorId": made["id"], "reason": " ", "endsAt": soon.isoformat()}, "reason"),
        ({"monitorId": made["id"], "reason": "x", "endsAt": "2020-01-01T00:00:00Z"}, "endsAt"),
        ({"monitorId": made["id"], "reason": "x", "endsAt": "2150-01-01T00:00:00Z"}, "endsAt"),
    ):
        refused = await admin.refused(SILENCE, input=given)
        assert [one["field"] for one in refused.extensions["fields"]] == [field], given
    given = {"monitorId": made["id"], "reason": "Known", "endsAt": soon.isoformat(), "idempotencyKey": "k"}
    assert (await member.refused(SILENCE, input=given)).codes == ["NOT_FOUND"]
    silence = (await admin(SILENCE, input=given))["createSilence"]["silence"]
    assert (await admin(SILENCE, input=given))["createSilence"]["silence"] == silence
    assert (silence["monitor"], silence["everybody"]) == ({"id": made["id"]}, True)
    living = "query ($all: Boolean!) { monitorSilences(livingOnly: $all) { nodes { id } } }"
    assert (await admin(living, all=True))["monitorSilences"]["nodes"] == [{"id": silence["id"]}]
    assert (await member(living, all=True))["monitorSilences"]["nodes"] == []
    assert (await member.refused(END_SILENCE, input={"silenceId": silence["id"]})).codes == ["NOT_FOUND"]
    ended = (await admin(END_SILENCE, input={"silenceId": silence["id"]}))["endSilence"]["silence"]["endedAt"]
    assert ended is not None
    assert (await admin(END_SILENCE, input={"silenceId": silence["id"]}))["endSilence"]["silence"]["endedAt"] == ended
    assert (await admin(living, all=True))["monitorSilences"]["nodes"] == []
    assert len((await admin(living, all=False))["monitorSilences"]["nodes"]) == 1
    actions = await db.fetch("SELECT action FROM audit_records WHERE action LIKE '%silence%' AND outcome = 'SUCCEEDED'")
    assert sorted(row["action"] for row in actions) == ["monitor_silence.create", "monitor_silence.end"]


# -- trying


async def test_a_dry_evaluation_shows_what_it_sees_and_does_nothing(place: Place) -> None:
    client = await place.client(Role.MEMBER)
    made = await create(client, groupBy="tool", windowSeconds=3600, forSeconds=600)
    moment = await db.fetchval("SELECT now()")
    await calls(place.house, 6, moment - MINUTE)
    await calls(place.house, 2, moment - MINUTE, tool="shell.run")
    seen = (await client(TRY, input={"monitorId": made["id"]}))["testMonitor"]
    assert (seen["state"], seen["groupsLeftOut"]) == ("FIRING", 0)
    assert "not been counted yet" in seen["explanation"], "there is no worker here"
    assert [(one["label"]["value"], one["state"], one["value"]) for one in seen["groups"]] == [
        ("time.now", "FIRING", 6),
        ("shell.run", "OK", 2),
    ]
    assert datetime.fromisoformat(seen["windowEnd"]) - datetime.fromisoformat(seen["windowStart"]) == timedelta(hours=1)
    assert await incidents(decode("mon", made["id"])) == []
    assert await told() == []
    assert await db.fetchval("SELECT count(*) FROM monitor_evaluations") == 0


async def test_a_test_fire_says_what_became_of_each_delivery(place: Place) -> None:
    client = await place.client(Role.MEMBER)
    with AlertReceiver() as receiver:
        ids = []
        for name, url in (("Good", receiver.url), ("Bad", f"http://127.0.0.1:{free_port()}/")):
            input_ = {"name": name, "kind": "WEBHOOK", "url": url}
            ids.append((await client(CHANNEL, input=input_))["createAlertChannel"]["channel"]["id"])
        made = await create(client, channelIds=ids)
        fired = (await client(TEST_FIRE, input={"monitorId": made["id"]}))["testFireMonitor"]
        assert fired["notifiedUsers"] == [{"id": place.id_of(Role.MEMBER)}]
        good, bad = fired["deliveries"]
        assert good == {
            "kind": "TEST",
            "status": "SENT",
            "lastError": None,
            "responseStatus": 204,
            "channel": {"name": "Good"},
        }
        assert (bad["status"], bad["channel"]["name"], "could not be reached" in bad["lastError"]) == (
            "FAILED",
            "Bad",
            True,
        )
        assert receiver.types == ["monitor.test"]
        for _ in range(4):
            await client(TEST_FIRE, input={"monitorId": made["id"]})
        refused = await client.refused(TEST_FIRE, input={"monitorId": made["id"]})
        assert (refused.codes, refused.extensions["retryAfterSeconds"]) == (["RATE_LIMITED"], 60)
    # Of whatever monitors, and without any channel.
    quiet = await create(client, name="No channel")
    for _ in range(5):
        await client(TEST_FIRE, input={"monitorId": quiet["id"]})
    assert (await client.refused(TEST_FIRE, input={"monitorId": quiet["id"]})).codes == ["RATE_LIMITED"]


# -- whole processes


async def test_workers_evaluate_tell_and_take_over_from_one_that_is_killed(
    place: Place, settings_for_tests: Settings, tmp_path: Path
) -> None:
    client = await place.client(Role.MEMBER)
    assert settings_for_tests.database_url is not None
    url = settings_for_tests.database_url.get_secret_value()
    with AlertReceiver() as receiver:
        input_ = {"name": "Hook", "kind": "WEBHOOK", "url": receiver.url}
        channel = (await client(CHANNEL, input=input_))["createAlertChannel"]["channel"]["id"]
        moment = await db.fetchval("SELECT now()")
        await calls(place.house, 6, moment - timedelta(minutes=5))
        await spend(place.house, 3.0, moment - timedelta(minutes=5))
        given = {"windowSeconds": 3600, "evaluateEverySeconds": 10, "channelIds": [channel]}
        for number in range(5):
            await create(client, name=f"Monitor {number}", **given)
        environment = environment_for(url, tmp_path, free_port(), "unused")
        with running("worker", environment, tmp_path) as first, running("worker", environment, tmp_path) as second:
            await wait_for(_when(lambda: len(receiver.posted) >= 5), 90)
            await wait_for(_all_noted(client), 60)  # posted is not yet noted
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
            evaluated = await db.fetchval("SELECT count(*) FROM monitor_evaluations")
            await wait_for(_more_evaluations(evaluated + 5), 60)
            assert second.poll() is None
        assert receiver.types == ["incident.firing"] * 5
    found = await client(INCIDENTS)
    assert found["incidents"]["totalCount"] == 5
    assert {one["toldCount"] for one in found["incidents"]["nodes"]} == {1}
    assert {one["deliveries"]["nodes"][0]["status"] for one in found["incidents"]["nodes"]} == {"SENT"}
    assert len(await told()) == 5


def _all_noted(client: Client) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def noted() -> bool:
        found = (await client(INCIDENTS))["incidents"]["nodes"]
        statuses = [delivery["status"] for incident in found for delivery in incident["deliveries"]["nodes"]]
        return len(statuses) == 5 and set(statuses) == {"SENT"}

    return noted


def _when(condition: Callable[[], bool]) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def true() -> bool:
        return condition()

    return true


def _more_evaluations(count: int) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def true() -> bool:
        return bool(await db.fetchval("SELECT count(*) FROM monitor_evaluations") >= count)

    return true
