"""Alerts on their way to webhooks and to a real Alertmanager: signed, in order, tried again, given up, sent again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.wiring import Program, _alert_senders
from core import db
from core.errors import BadInput, Conflict, NotFound
from core.ids import encode
from core.permissions import Role
from core.settings import Settings
from models.base import Row
from models.monitors import AlertChannelKind, AlertChannelRow, MonitorRow
from services.monitors import delivery
from services.monitors.channels import (
    ChannelChanges,
    NewChannel,
    create_channel,
    remove_channel,
    rotate_secret,
    send_again,
    update_channel,
)
from services.monitors.delivery import AT_ONCE_OF_ORGANIZATION, AlertDeliverer, deliver_alerts_once
from services.monitors.trying import test_fire as fire_test
from services.parts import install, parts
from tests.conftest import environment_for, free_port, running
from tests.fakes.alert_receiver import AlertReceiver
from tests.fakes.puppet import wait_for
from tests.monitoring import MINUTE, NOON, at, calls, monitor, told, watch
from tests.services.identity_help import House, a_house
from tests.tools import alertmanager_path

pytestmark = pytest.mark.anyio


@pytest.fixture
def receiver() -> Iterator[AlertReceiver]:
    with AlertReceiver() as server:
        yield server


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


async def webhook(house: House, url: str, role: Role = Role.MEMBER) -> tuple[AlertChannelRow, str]:
    made = await create_channel(house.actor(role), NewChannel("Hook", AlertChannelKind.WEBHOOK, url), None)
    assert made.secret is not None
    return made.channel, made.secret


async def firing(house: House, *channels: AlertChannelRow, role: Role = Role.MEMBER, **given: Any) -> MonitorRow:
    """A monitor of these channels whose incident has opened at noon."""
    row = await watch(
        house.actor(role), window_seconds=60, channel_ids=[channel["id"] for channel in channels], **given
    )
    await calls(house, 6, NOON)
    await at(NOON)
    return row


async def deliveries() -> list[Row]:
    return await db.fetch("SELECT * FROM alert_deliveries ORDER BY id", row=Row)


async def statuses() -> list[tuple[str, str]]:
    return [(row["kind"], row["status"]) for row in await deliveries()]


async def is_due() -> None:
    """As if the time of everything that waits had come, and the claims of dead workers had run out."""
    await db.execute("UPDATE alert_deliveries SET next_attempt_at = now(), claimed_until = NULL")


async def deliver() -> None:
    await is_due()
    while await deliver_alerts_once():
        pass


# -- webhooks


async def test_a_webhook_is_signed_by_the_specification_and_told_of_beginning_and_end(
    house: House, receiver: AlertReceiver
) -> None:
    channel, secret = await webhook(house, receiver.url)
    row = await firing(house, channel, labels={"team": "blue"})
    await deliver()
    await at(NOON + MINUTE)
    await deliver()
    assert receiver.types == ["incident.firing", "incident.resolved"]
    assert await statuses() == [("FIRING", "SENT"), ("RESOLVED", "SENT")]
    began, ended = receiver.posted
    assert Webhook(secret).verify(began.body, began.headers) == began.json
    assert Webhook(secret).verify(ended.body, ended.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(began.body.replace(b"6", b"7"), began.headers)
    assert secret.startswith("whsec_")
    assert began.headers["webhook-id"] == f"msg_{encode('ald', (await deliveries())[0]['id'])}"
    data = began.json["data"]
    assert data["monitor"] == {
        "id": encode("mon", row["id"]),
        "name": "Calls",
        "metric": "tools.calls",
        "windowSeconds": 60,
        "condition": "above 5",
    }
    assert data["incident"] | {"id": "", "labels": {}} == {
        "id": "",
        "state": "FIRING",
        "title": "Calls",
        "group": None,
        "groupName": None,
        "openedAt": NOON.isoformat(),
        "resolvedAt": None,
        "resolution": None,
        "openingValue": 6.0,
        "value": 6.0,
        "summary": "tools.calls is 6 over 1 min; the monitor asks for above 5.",
        "severity": "WARNING",
        "labels": {},
    }
    assert data["incident"]["labels"]["team"] == "blue"
    assert ended.json["data"]["incident"]["resolvedAt"] == (NOON + MINUTE).isoformat()


async def test_for_a_day_after_a_rotation_both_secrets_verify(house: House, receiver: AlertReceiver) -> None:
    channel, old = await webhook(house, receiver.url)
    new = (await rotate_secret(house.actor(Role.MEMBER), channel["id"])).secret
    assert new is not None
    row = await firing(house, channel)
    await deliver()
    [posted] = receiver.posted
    assert len(posted.headers["webhook-signature"].split()) == 2
    for secret in (old, new):
        Webhook(secret).verify(posted.body, posted.headers)
    await db.execute("UPDATE alert_channels SET former_until = now() - interval '1 second'")
    await fire_test(house.actor(Role.MEMBER), row["id"])
    later = receiver.posted[-1]
    Webhook(new).verify(later.body, later.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(later.body, later.headers)
    stored = bytes(await db.fetchval("SELECT secret_sealed FROM alert_channels"))
    assert new.encode() not in stored
    audit = await db.fetch("SELECT before, after, details FROM audit_records")
    assert not any(secret.removeprefix("whsec_") in str(dict(record)) for record in audit for secret in (old, new))


async def test_what_is_not_taken_is_tried_again_with_the_same_id_and_in_order(
    house: House, receiver: AlertReceiver
) -> None:
    channel, secret = await webhook(house, receiver.url)
    await firing(house, channel)
    receiver.answers = [500, 302]
    await is_due()
    await deliver_alerts_once()
    assert await deliver_alerts_once() == 0, "not before its time"
    [row] = await deliveries()
    assert (row["status"], row["attempts"], row["response_status"]) == ("PENDING", 1, 500)
    assert "500" in row["last_error"]
    wait = (row["next_attempt_at"] - datetime.now(UTC)).total_seconds()
    assert 10 < wait < 50
    await at(NOON + MINUTE)
    await is_due()
    await deliver_alerts_once()
    assert await deliver_alerts_once() == 0, "that it is over waits for that it began"
    assert (await deliveries())[0]["response_status"] == 302, "redirects are not followed"
    await deliver()
    assert receiver.types == ["incident.firing"] * 3 + ["incident.resolved"]
    ids = [one.headers["webhook-id"] for one in receiver.posted]
    assert (len(set(ids[:3])), len(set(ids))) == (1, 2)
    for one in receiver.posted:
        Webhook(secret).verify(one.body, one.headers)
    assert await statuses() == [("FIRING", "SENT"), ("RESOLVED", "SENT")]
    assert await db.fetchval("SELECT failures FROM alert_channels") == 0


async def test_after_a_day_it_is_given_up_seen_and_sent_again(house: House, receiver: AlertReceiver) -> None:
    member = house.actor(Role.MEMBER)
    channel, _ = await webhook(house, receiver.url)
    await firing(house, channel)
    receiver.answers = [503]
    await db.execute("UPDATE alert_deliveries SET give_up_at = now() + interval '5 seconds'")
    await deliver()
    [row] = await deliveries()
    assert row["status"] == "FAILED"
    await deliver()
    assert len(receiver.posted) == 1
    with pytest.raises(NotFound):
        await send_again((await a_house("Elsewhere")).actor(Role.OWNER), row["id"])
    await send_again(member, row["id"])
    with pytest.raises(Conflict):
        await send_again(member, row["id"])
    await deliver()
    assert [status for _, status in await statuses()] == ["SENT"]
    assert receiver.posted[0].headers["webhook-id"] == receiver.posted[1].headers["webhook-id"]


async def test_a_channel_that_takes_nothing_for_a_day_is_disabled_and_its_owner_told(
    house: House, receiver: AlertReceiver
) -> None:
    member = house.actor(Role.MEMBER)
    channel, _ = await webhook(house, receiver.url)
    row = await firing(house, channel)
    receiver.answers = [500] * 20
    for _ in range(delivery.FAILURES_TO_DISABLE):
        await deliver()
    assert await db.fetchval("SELECT status FROM alert_channels") == "ACTIVE", "not before a day has passed"
    await db.execute("UPDATE alert_channels SET failing_since = now() - interval '25 hours'")
    await deliver()
    assert await db.fetchval("SELECT status FROM alert_channels") == "DISABLED"
    assert await statuses() == [("FIRING", "FAILED")]
    assert (await told(member.user_id))[-1] == "Alert channel disabled: Hook"
    assert await db.fetchval("SELECT count(*) FROM audit_records WHERE action = 'alert_channel.disable'") == 1
    with pytest.raises(Conflict, match="disabled"):
        await send_again(member, (await deliveries())[0]["id"])
    receiver.answers = []
    await update_channel(member, channel["id"], ChannelChanges(enabled=True))
    await send_again(member, (await deliveries())[0]["id"])
    await deliver()
    assert await statuses() == [("FIRING", "SENT")]
    assert (await monitor(row["id"]))["state"] == "FIRING"


async def test_a_receiver_that_is_gone_for_good_is_asked_once(house: House, receiver: AlertReceiver) -> None:
    channel, _ = await webhook(house, receiver.url)
    receiver.answers = [410]
    await firing(house, channel)
    await deliver()
    found = await db.fetchrow("SELECT status, disabled_reason FROM alert_channels")
    assert (found["status"], "gone" in found["disabled_reason"]) == ("DISABLED", True)
    await at(NOON + MINUTE)
    await deliver()
    assert len(receiver.posted) == 1


async def test_several_workers_send_each_alert_once_and_a_slow_one_is_not_sent_twice(
    house: House, receiver: AlertReceiver
) -> None:
    channel, _ = await webhook(house, receiver.url)
    for number in range(6):
        await watch(house.actor(Role.MEMBER), name=f"Monitor {number}", window_seconds=60, channel_ids=[channel["id"]])
    await calls(house, 6, NOON)
    while await at(NOON):
        pass
    await is_due()
    receiver.hold.clear()
    sending = [asyncio.create_task(deliver_alerts_once()) for _ in range(4)]
    await wait_for(_true_when(lambda: len(receiver.posted) == 2))
    assert await deliver_alerts_once() == 0, "so many of a channel are in hand at once"
    receiver.hold.set()
    assert sum(await asyncio.gather(*sending)) == 2
    await deliver()
    assert len(receiver.posted) == 6
    assert [status for _, status in await statuses()] == ["SENT"] * 6


async def test_slow_receivers_of_one_organisation_keep_nobody_waiting(house: House, receiver: AlertReceiver) -> None:
    for number in range(6):
        channel, _ = await webhook(house, f"{receiver.url}/{number}")
        for which in "ABC":
            await watch(house.actor(Role.MEMBER), name=which, window_seconds=60, channel_ids=[channel["id"]])
    await calls(house, 6, NOON)
    other = await a_house("Elsewhere")
    while await at(NOON):
        pass
    await is_due()
    receiver.hold.clear()
    deliverer = AlertDeliverer()
    deliverer.start()
    try:
        await wait_for(_true_when(lambda: len(receiver.posted) == AT_ONCE_OF_ORGANIZATION))
        with AlertReceiver() as theirs:
            await firing(other, (await webhook(other, theirs.url))[0])
            await wait_for(_true_when(lambda: len(theirs.posted) == 1))
            assert len(receiver.posted) == AT_ONCE_OF_ORGANIZATION
        receiver.hold.set()
        await wait_for(_true_when(lambda: len(receiver.posted) == 18))
    finally:
        receiver.hold.set()
        await deliverer.stop()
    assert {status for _, status in await statuses()} == {"SENT"}


async def test_slow_receivers_of_two_organisations_leave_room_for_a_third(
    house: House, receiver: AlertReceiver
) -> None:
    slow = [house, await a_house("Elsewhere")]
    for one in slow:
        for number in range(4):
            channel, _ = await webhook(one, f"{receiver.url}/{one.organization_id}/{number}")
            for which in "AB":
                await watch(one.actor(Role.MEMBER), name=which, window_seconds=60, channel_ids=[channel["id"]])
        await calls(one, 6, NOON)
    while await at(NOON):
        pass
    await is_due()
    receiver.hold.clear()
    deliverer = AlertDeliverer()
    deliverer.start()
    try:
        await wait_for(_true_when(lambda: len(receiver.posted) == 10))
        third = await a_house("Nowhere")
        with AlertReceiver() as theirs:
            await firing(third, (await webhook(third, theirs.url))[0])
            await wait_for(_true_when(lambda: len(theirs.posted) == 1))
        assert len(receiver.posted) == 10, "five of each: with 6 places left, none of them takes a sixth"
        receiver.hold.set()
        await wait_for(_true_when(lambda: len(receiver.posted) == 16))
    finally:
        receiver.hold.set()
        await deliverer.stop()
    assert {status for _, status in await statuses()} == {"SENT"}


async def test_a_worker_that_was_killed_while_it_sent_leaves_its_alert_to_the_others(
    house: House, database: Program, settings_for_tests: Settings, receiver: AlertReceiver, tmp_path: Path
) -> None:
    channel, secret = await webhook(house, receiver.url)
    await firing(house, channel)
    await is_due()
    receiver.hold.clear()
    assert settings_for_tests.database_url is not None
    url = settings_for_tests.database_url.get_secret_value()
    environment = environment_for(url, tmp_path, free_port(), "unused")
    with running("worker", environment, tmp_path) as worker:
        await wait_for(_true_when(lambda: len(receiver.posted) == 1), 60)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    receiver.hold.set()
    assert await deliver_alerts_once() == 0, "its claim has not run out"
    await deliver()
    first, second = receiver.posted
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    Webhook(secret).verify(second.body, second.headers)
    assert await statuses() == [("FIRING", "SENT")]


async def test_nothing_leads_into_a_private_network(house: House, receiver: AlertReceiver) -> None:
    channel, _ = await webhook(house, receiver.url)
    await firing(house, channel)
    before = parts()
    strict = before.settings.model_copy(update={"allow_private_networks": False})
    install(replace(before, settings=strict, alert_senders=_alert_senders(strict)))
    for url in (receiver.url, "http://169.254.169.254/latest", "http://[::1]/", "file:///etc/passwd", "http://a@b.c/"):
        with pytest.raises(BadInput) as refused:
            await webhook(house, url)
        assert refused.value.details["fields"][0]["field"] == "url"
    await deliver()
    assert receiver.posted == [], "every attempt looks again"
    assert "private network" in (await deliveries())[0]["last_error"]


async def test_a_receiver_s_secrets_do_not_move_with_its_url(house: House, receiver: AlertReceiver) -> None:
    member = house.actor(Role.MEMBER)
    new = NewChannel("AM", AlertChannelKind.ALERTMANAGER, receiver.url, "Bearer very-secret")
    channel = (await create_channel(member, new, None)).channel
    with pytest.raises(BadInput, match="authorization"):
        await update_channel(house.actor(Role.ADMIN), channel["id"], ChannelChanges(url="http://127.0.0.1:9/other"))
    await firing(house, channel)
    await deliver()
    assert receiver.posted[0].headers["authorization"] == "Bearer very-secret"
    stranger = (await a_house("Elsewhere")).actor(Role.OWNER)
    with pytest.raises(NotFound):
        await update_channel(stranger, channel["id"], ChannelChanges(name="Mine"))


async def test_a_removed_channel_is_of_no_monitor_any_more(house: House, receiver: AlertReceiver) -> None:
    member = house.actor(Role.MEMBER)
    channel, _ = await webhook(house, receiver.url)
    row = await firing(house, channel)
    await remove_channel(member, channel["id"])
    await deliver()
    assert receiver.posted == []
    assert (await monitor(row["id"]))["channel_ids"] == []
    assert (await db.fetchrow("SELECT secret_sealed FROM alert_channels"))["secret_sealed"] is None


async def test_a_test_alert_goes_all_ways_and_each_says_what_became_of_it(
    house: House, receiver: AlertReceiver
) -> None:
    member = house.actor(Role.MEMBER)
    good, secret = await webhook(house, receiver.url)
    bad, _ = await webhook(house, f"http://127.0.0.1:{free_port()}/")
    row = await watch(member, channel_ids=[good["id"], bad["id"]])
    fired = await fire_test(member, row["id"])
    assert fired.user_ids == [member.user_id]
    assert await told(member.user_id) == ["[Test] Calls"]
    outcomes = {one["channel_id"]: (one["kind"], one["status"], one["attempts"]) for one in fired.deliveries}
    assert outcomes == {good["id"]: ("TEST", "SENT", 1), bad["id"]: ("TEST", "FAILED", 1)}
    [posted] = receiver.posted
    assert Webhook(secret).verify(posted.body, posted.headers)["data"]["test"] is True
    assert posted.json["type"] == "monitor.test"
    await deliver()
    assert len(receiver.posted) == 1
    assert await db.fetchval("SELECT max(failures) FROM alert_channels") == 0, "tests do not count as failures"


def _true_when(condition: Any) -> Any:
    async def true() -> bool:
        return bool(condition())

    return true


# -- Alertmanager


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Alertmanager, at its URL."""
    home = tmp_path_factory.mktemp("alertmanager")
    port = free_port()
    config = home / "alertmanager.yml"
    config.write_text("route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n")
    with (home / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                alertmanager_path(),
                f"--config.file={config}",
                f"--storage.path={home / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(300):
                try:
                    if httpx.get(f"{url}/-/ready", timeout=2).is_success:
                        break
                except httpx.TransportError:
                    assert process.poll() is None, (home / "alertmanager.log").read_text()
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def known(alertmanager: str) -> Any:
    """Asks the Alertmanager what it knows of an incident."""

    async def ask(name: str) -> list[dict[str, Any]]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{alertmanager}/api/v2/alerts", params={"filter": f'alertname="{name}"'})
            return answer.raise_for_status().json()  # type: ignore[no-any-return]

    return ask


async def alertmanager_of(house: House, url: str) -> AlertChannelRow:
    new = NewChannel("Alertmanager", AlertChannelKind.ALERTMANAGER, url)
    return (await create_channel(house.actor(Role.MEMBER), new, None)).channel


async def test_an_alertmanager_knows_what_fires_as_long_as_it_does(house: House, alertmanager: str, known: Any) -> None:
    channel = await alertmanager_of(house, alertmanager)
    await firing(house, channel, name="Too many calls", labels={"team": "blue"}, group_by="tool")
    await deliver()
    [alert] = await known("Too many calls")
    assert alert["status"]["state"] == "active"
    assert alert["labels"] | {"monitor": "", "incident": ""} == {
        "alertname": "Too many calls",
        "team": "blue",
        "severity": "warning",
        "metric": "tools.calls",
        "tool": "time.now",
        "monitor": "",
        "incident": "",
    }
    assert alert["annotations"]["summary"] == "Firing: Too many calls (tool time.now)"
    assert datetime.fromisoformat(alert["startsAt"]) == NOON
    ends = datetime.fromisoformat(alert["endsAt"])
    assert timedelta(minutes=3) < ends - datetime.now(UTC) < timedelta(minutes=5)

    # It stands, and is told again before that.
    [row] = await deliveries()
    assert (row["status"], row["attempts"]) == ("STANDING", 0)
    assert row["next_attempt_at"] - datetime.now(UTC) < timedelta(seconds=61)
    assert await deliver_alerts_once() == 0
    await asyncio.sleep(0.05)
    await is_due()
    await deliver_alerts_once()
    [again] = await known("Too many calls")
    assert datetime.fromisoformat(again["endsAt"]) > ends
    assert again["fingerprint"] == alert["fingerprint"]

    await at(NOON + MINUTE)
    await deliver()
    assert await known("Too many calls") == [], "what is over is not among the alerts any more"
    assert await statuses() == [("FIRING", "SENT"), ("RESOLVED", "SENT")]
    await deliver()
    assert await known("Too many calls") == []


async def test_what_stands_is_told_on_after_its_receiver_was_away(house: House, alertmanager: str, known: Any) -> None:
    channel = await alertmanager_of(house, alertmanager)
    await firing(house, channel, name="Away")
    await deliver()
    await db.execute("UPDATE alert_channels SET url = $1", f"http://127.0.0.1:{free_port()}")
    await is_due()
    await deliver_alerts_once()
    [row] = await deliveries()
    assert row["status"] == "STANDING"
    assert row["next_attempt_at"] - datetime.now(UTC) < timedelta(seconds=61)
    await at(NOON + MINUTE)
    await is_due()
    await deliver_alerts_once()
    assert await statuses() == [("FIRING", "SENT"), ("RESOLVED", "PENDING")]
    await db.execute("UPDATE alert_channels SET url = $1", alertmanager)
    assert len(await known("Away")) == 1
    await deliver()
    assert await known("Away") == []


async def test_a_test_alert_reaches_the_alertmanager_marked_as_one(house: House, alertmanager: str, known: Any) -> None:
    channel = await alertmanager_of(house, alertmanager)
    row = await watch(house.actor(Role.MEMBER), name="Tried", channel_ids=[channel["id"]])
    fired = await fire_test(house.actor(Role.MEMBER), row["id"])
    assert [(one["status"], one["response_status"]) for one in fired.deliveries] == [("SENT", 200)]
    [alert] = await known("Tried")
    assert alert["labels"]["test"] == "true"
    assert alert["annotations"]["summary"] == "[Test] Tried"
