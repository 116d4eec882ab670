"""Channels: where alerts go outside of the product. Their secrets are shown once, or never."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from core import net
from core.errors import BadInput, Conflict, NotFound, QuarterdeckError
from core.permissions import Actor, Permission
from models.base import Query
from models.monitors import AlertChannel, AlertChannelKind, AlertChannelRow, AlertDelivery, AlertDeliveryRow, AlertKind
from services.idempotency import claim
from services.monitors.alerts import GIVE_UP_AFTER, announce
from services.monitors.checking import text_problems
from services.monitors.delivery import disable, purpose
from services.parts import parts
from services.work import Work, write

LONGEST_URL = 2000
MOST_CHANNELS = 100
FORMER_HOLDS = timedelta(hours=24)
"""How long webhooks are signed with the secret of before as well."""
_AUTHORIZATION = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,3999}\Z")


@dataclass(frozen=True, slots=True)
class NewChannel:
    """A channel to make. `authorization` is an Alertmanager's header, if it wants one."""

    name: str
    kind: AlertChannelKind
    url: str
    authorization: str | None = None


@dataclass(frozen=True, slots=True)
class ChannelChanges:
    """What to change; None leaves a thing as it is. An empty `authorization` takes it away."""

    name: str | None = None
    url: str | None = None
    authorization: str | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class WithSecret:
    """A channel, and the secret that was made for it, which nobody is shown again."""

    channel: AlertChannelRow
    secret: str | None


async def create_channel(actor: Actor, new: NewChannel, key: str | None) -> WithSecret:
    """Make a channel; a webhook with a secret, which the same key does not show again. Raises BadInput, Conflict."""
    problems = [*text_problems(new.name, "name", longest=200), *await _url_problems(new.url)]
    problems += _authorization_problems(new.kind, new.authorization)
    if problems:
        raise BadInput.of_fields(problems)
    async with write(actor, "alert_channel.create") as work:
        actor.require(Permission.MONITORS_MANAGE)
        claimed = await claim(work, "createAlertChannel", key, _public(new.name, new.kind, new.url))
        if claimed.earlier is not None:
            work.entry.action = ""
            return WithSecret(await lock_channel(work, claimed.earlier), None)
        count = await work.tx.fetchval(
            "SELECT count(*) FROM alert_channels WHERE organization_id = $1 AND removed_at IS NULL",
            actor.organization_id,
        )
        if count >= MOST_CHANNELS:
            raise Conflict(f"There are {MOST_CHANNELS} channels already. Remove those that are not needed any more.")
        secret = new_signing_secret() if new.kind is AlertChannelKind.WEBHOOK else None
        row = await work.tx.fetchrow(
            "INSERT INTO alert_channels (id, organization_id, owner_id, name, kind, url, secret_sealed, status, "
            "failures, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'ACTIVE', 0, $8, $8) RETURNING *",
            claimed.result_id,
            actor.organization_id,
            actor.user_id,
            new.name.strip(),
            new.kind.value,
            new.url,
            _sealed(claimed.result_id, secret or new.authorization or None),
            work.at,
            row=AlertChannelRow,
        )
        assert row is not None
        work.target("AlertChannel", row["id"], row["name"])
        work.changed(after=_public(new.name, new.kind, new.url))
    return WithSecret(row, secret)


async def update_channel(actor: Actor, id_: UUID, changes: ChannelChanges) -> AlertChannelRow:
    """Change a channel. Enabled again, it begins with a clean slate. Raises BadInput, NotFound."""
    problems = [] if changes.name is None else text_problems(changes.name, "name", longest=200)
    problems += [] if changes.url is None else await _url_problems(changes.url)
    if problems:
        raise BadInput.of_fields(problems)
    async with write(actor, "alert_channel.update") as work:
        actor.require(Permission.MONITORS_MANAGE)
        before = await lock_channel(work, id_)
        if found := _authorization_problems(AlertChannelKind(before["kind"]), changes.authorization):
            raise BadInput.of_fields(found)
        given = changes.authorization
        moves = changes.url not in (None, before["url"])
        if moves and given is None and before["kind"] == AlertChannelKind.ALERTMANAGER and before["secret_sealed"]:
            # Else whoever may change where it leads would be sent what was entered for another receiver.
            raise BadInput("Enter the authorization again for another URL; empty for none.", field="authorization")
        row = await work.tx.fetchrow(
            "UPDATE alert_channels SET name = $2, url = $3, secret_sealed = $4, updated_at = $5 WHERE id = $1 "
            "RETURNING *",
            id_,
            before["name"] if changes.name is None else changes.name.strip(),
            before["url"] if changes.url is None else changes.url,
            before["secret_sealed"] if given is None else _sealed(id_, given or None),
            work.at,
            row=AlertChannelRow,
        )
        if changes.enabled is False and before["status"] == "ACTIVE":
            await disable(work, before, "It was disabled by hand.")
        elif changes.enabled and before["status"] == "DISABLED":
            await work.tx.execute(
                "UPDATE alert_channels SET status = 'ACTIVE', disabled_reason = NULL, failures = 0, "
                "failing_since = NULL WHERE id = $1",
                id_,
            )
        row = await lock_channel(work, id_)
        work.changed(before=_shown(before), after=_shown(row))
    return row


async def rotate_secret(actor: Actor, id_: UUID) -> WithSecret:
    """A new secret for a webhook. For a day, deliveries are signed with the one of before as well. Raises NotFound,
    BadInput for what is no webhook."""
    async with write(actor, "alert_channel.rotate_secret") as work:
        actor.require(Permission.MONITORS_MANAGE)
        before = await lock_channel(work, id_)
        if before["kind"] != AlertChannelKind.WEBHOOK:
            raise BadInput("Only webhooks have a secret that we make.", field="channelId")
        secret = new_signing_secret()
        row = await work.tx.fetchrow(
            "UPDATE alert_channels SET secret_sealed = $2, former_secret_sealed = secret_sealed, former_until = $3, "
            "updated_at = $4 WHERE id = $1 RETURNING *",
            id_,
            _sealed(id_, secret),
            work.at + FORMER_HOLDS,
            work.at,
            row=AlertChannelRow,
        )
        assert row is not None
        work.changed(after={"secret": "[redacted]", "formerUntil": row["former_until"]})
    return WithSecret(row, secret)


async def remove_channel(actor: Actor, id_: UUID) -> AlertChannelRow:
    """Remove a channel, from monitors too; what waits for it is not sent any more. Raises NotFound."""
    async with write(actor, "alert_channel.remove") as work:
        actor.require(Permission.MONITORS_MANAGE)
        row = await lock_channel(work, id_)
        await disable(work, row, "It was removed.")
        await work.tx.execute(
            "UPDATE alert_channels SET removed_at = $2, secret_sealed = NULL, former_secret_sealed = NULL "
            "WHERE id = $1",
            id_,
            work.at,
        )
        await work.tx.execute(
            "UPDATE monitors SET channel_ids = array_remove(channel_ids, $1) WHERE organization_id = $2 "
            "AND $1 = ANY(channel_ids)",
            id_,
            actor.organization_id,
        )
        work.changed(before=_shown(row))
    return row


async def send_again(actor: Actor, delivery_id: UUID) -> AlertDeliveryRow:
    """Send once more what was given up, for another day. Raises NotFound; Conflict where it was not given up, or its
    channel is disabled."""
    async with write(actor, "alert_delivery.retry") as work:
        actor.require(Permission.MONITORS_MANAGE)
        query = Query()
        row = await work.tx.fetchrow(
            f"SELECT * FROM alert_deliveries WHERE id = {query.arg(delivery_id)} "
            f"AND {query.scope(AlertDelivery.visible_to(actor))} FOR UPDATE",
            *query.args,
            row=AlertDeliveryRow,
        )
        if row is None:
            raise NotFound("There is no such delivery, or you may not see it.", field="deliveryId")
        channel = await lock_channel(work, row["channel_id"])
        work.target("AlertDelivery", delivery_id, channel["name"])
        if row["status"] != "FAILED" or row["kind"] == AlertKind.TEST:
            raise Conflict("Only what was given up is sent again.", field="deliveryId")
        if channel["status"] == "DISABLED":
            raise Conflict("Its channel is disabled: enable it first.", field="deliveryId")
        again = await work.tx.fetchrow(
            "UPDATE alert_deliveries SET status = 'PENDING', attempts = 0, claim = claim + 1, claimed_until = NULL, "
            "next_attempt_at = $2, give_up_at = $3 WHERE id = $1 RETURNING *",
            delivery_id,
            work.at,
            work.at + GIVE_UP_AFTER,
            row=AlertDeliveryRow,
        )
        assert again is not None
        work.after_commit(announce)
    return again


async def lock_channel(work: Work, id_: UUID, *, field: str = "channelId") -> AlertChannelRow:
    """The channel, held until the end of the transaction; NotFound where the actor may not see it."""
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM alert_channels WHERE id = {query.arg(id_)} "
        f"AND {query.scope(AlertChannel.visible_to(work.actor))} FOR NO KEY UPDATE",
        *query.args,
        row=AlertChannelRow,
    )
    if row is None:
        raise NotFound("There is no such channel, or you may not see it.", field=field)
    work.target("AlertChannel", row["id"], row["name"])
    return row


def new_signing_secret() -> str:
    """A fresh secret as Standard Webhooks has them: `whsec_` and the base64 of 32 random bytes."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _sealed(channel_id: UUID, secret: str | None) -> bytes | None:
    return None if secret is None else parts().vault.seal(secret, purpose=purpose(channel_id))


async def _url_problems(url: str) -> Sequence[tuple[str, str]]:
    """A URL that leads nowhere it may is refused at once; every delivery looks again."""
    if len(url) > LONGEST_URL:
        return [("url", f"At most {LONGEST_URL:,} characters.")]
    try:
        host, port = net.check_url(url)
        await net.resolve(host, port, allow_private=parts().settings.allow_private_networks)
    except QuarterdeckError as error:
        return [("url", error.message)]
    return []


def _authorization_problems(kind: AlertChannelKind, given: str | None) -> list[tuple[str, str]]:
    if not given:
        return []
    if kind is AlertChannelKind.WEBHOOK:
        return [("authorization", "Webhooks are signed: only an Alertmanager takes this.")]
    if not _AUTHORIZATION.match(given):
        return [("authorization", "A header's value, as `Bearer …`: up to 4,000 visible characters.")]
    return []


def _public(name: str, kind: AlertChannelKind, url: str) -> dict[str, Any]:
    return {"name": name, "kind": kind, "url": _without_query(url)}


def _shown(row: AlertChannelRow) -> dict[str, Any]:
    return {"name": row["name"], "url": _without_query(row["url"]), "status": row["status"]}


def _without_query(url: str) -> str:
    """URLs of webhooks may carry a key in their query."""
    return url.partition("?")[0]
