"""Puts a process together: the one place where the parts are chosen."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
from pydantic import SecretStr

from core import db
from core.bus import Bus
from core.crypto import Vault, installation_secret
from core.errors import Unavailable
from core.settings import Settings
from integrations import charts
from integrations.agents.registry import Agents, agents, default_runtime
from integrations.alerts.alertmanager import AlertmanagerSender
from integrations.alerts.base import AlertSender
from integrations.alerts.webhook import WebhookSender
from integrations.durable.dbos_queue import DurableQueue
from integrations.notify.base import Notifier
from integrations.notify.smtp import SmtpNotifier, SmtpServer
from integrations.sandbox.usage import disk_bytes, sandbox_usage
from integrations.seeds.fetcher import Fetcher
from models.migrate import migrate
from models.monitors import AlertChannelKind
from services.audit_sequencer import Sequencer
from services.costs.ledger import prune_spending
from services.identity.housekeeping import remove_stale_credentials
from services.identity.revocations import revocations
from services.metrics import retention
from services.metrics.metering import Metering
from services.metrics.resources import Sampler, Sandboxes, installation_sampler
from services.monitors.delivery import AlertDeliverer
from services.monitors.evaluation import Evaluator
from services.monitors.pruning import prune_monitors
from services.notifications.delivery import Deliverer
from services.notifications.inbox import prune_notifications
from services.parts import Parts, install
from services.presence.rooms import presence
from services.reports.making import Reporter, prune_reports
from services.runs.executor import RunExecutor
from services.sessions.pruning import prune_session_changes
from services.sharing.views import views
from services.templates.tester import Tester

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 15.0
"""For runs under way when a worker is told to stop. With all else that ends it takes less than 30 seconds."""

HOUSEKEEPING_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Program:
    """A process that is put together."""

    parts: Parts
    queue: DurableQueue
    agents: Agents


@asynccontextmanager
async def connected(settings: Settings, database_url: str) -> AsyncIterator[Program]:
    """A process with everything connected, ready to serve or to work.

    Raises Unavailable where the database, the bus or the key cannot be used.
    """
    make_home(settings)
    vault = Vault(
        installation_secret(settings.secret_key.get_secret_value() if settings.secret_key else None, settings.data)
    )
    async with AsyncExitStack() as stack:
        await db.connect(database_url, pool_size=settings.database_pool_size)
        stack.push_async_callback(db.close)
        await _check_key(vault)
        bus = Bus(settings.bus_url.get_secret_value(), queue_size=settings.subscription_queue_size)
        await bus.connect()
        stack.push_async_callback(bus.close)
        queue = DurableQueue(database_url)
        await queue.connect()
        stack.push_async_callback(queue.stop, DRAIN_SECONDS)
        found = agents(settings)
        stack.push_async_callback(found.close)
        parts = Parts(
            settings=settings,
            vault=vault,
            bus=bus,
            queue=queue,
            runtimes=found.runtimes,
            default_runtime=default_runtime(settings),
            inspect_server=found.servers.inspect,
            seeds=Fetcher(settings, found.sandbox.sandbox),
            executor_id=f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}",
            draw_chart=charts.pdf,
            notifiers={notifier.name: notifier for notifier in _notifiers(settings)},
            alert_senders=_alert_senders(settings),
        )
        install(parts)
        stack.callback(install, None)
        yield Program(parts, queue, found)


@asynccontextmanager
async def serving(program: Program) -> AsyncIterator[None]:
    """What a web process does beside answering: keep watch over credentials in use, write down who read what, and tell
    who is in sessions."""
    async with revocations.running(program.parts.bus), views.running(), presence.running():
        yield


@asynccontextmanager
async def working(program: Program) -> AsyncIterator[None]:
    """What a worker does: execute runs, number the audit log, count, and keep house."""
    settings = program.parts.settings
    executor = RunExecutor(program.queue.sweep)
    sequencer = Sequencer()
    await program.queue.work(
        executor.execute, per_worker=settings.worker_concurrency, per_organization=settings.organization_concurrency
    )
    deliverer = Deliverer()
    evaluator, alerts = Evaluator(), AlertDeliverer()
    executor.start()
    sequencer.start()
    counting = (Metering(), installation_sampler(), Sampler([Sandboxes(sandbox_usage, disk_bytes)]))
    for each in counting:
        each.start()
    tester = Tester()
    tester.start()
    reporter = Reporter()
    reporter.start()
    evaluator.start()
    alerts.start()
    if program.parts.notifiers:
        deliverer.start()
    house = asyncio.create_task(_keep_house())
    try:
        yield
    finally:
        house.cancel()
        await asyncio.gather(house, return_exceptions=True)
        await tester.stop()
        await reporter.stop()
        await asyncio.gather(deliverer.stop(), evaluator.stop(), alerts.stop())
        for each in counting:
            await each.stop()
        await program.queue.stop(DRAIN_SECONDS)
        await executor.stop()
        await sequencer.stop()


async def prepare_database(database_url: str, progress: Callable[[str], object] = lambda _: None) -> None:
    """Migrate everything that is in the database: our tables, and those of the durable queue."""
    await migrate(database_url, progress=progress)
    await DurableQueue(database_url).migrate()


def database_url(settings: Settings) -> str:
    """The database that the settings name; Unavailable where they name none."""
    if settings.database_url is None:
        raise Unavailable(
            "QUARTERDECK_DATABASE_URL is not set. Give it a PostgreSQL URL, "
            "or use `quarterdeck dev`, which brings a database along."
        )
    return settings.database_url.get_secret_value()


def among_processes(settings: Settings, database_url: str) -> Settings:
    """The settings of one process of several: where they name no bus that others hear, the database is it."""
    if settings.bus_url.get_secret_value().startswith("memory:"):
        return settings.model_copy(update={"bus_url": SecretStr(database_url)})
    return settings


def make_home(settings: Settings) -> Path:
    """The data folder, made where it is missing."""
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        settings.workspaces.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise Unavailable(
            f"The data folder {settings.data} cannot be made: {error.strerror}. Set QUARTERDECK_HOME."
        ) from None
    return settings.data


def _notifiers(settings: Settings) -> list[Notifier]:
    """The ways to tell people outside of the product; none where none is configured."""
    if settings.smtp_url is None or settings.smtp_from is None:
        return []
    return [SmtpNotifier(SmtpServer.of(settings.smtp_url.get_secret_value()), settings.smtp_from)]


def _alert_senders(settings: Settings) -> dict[str, AlertSender]:
    """What takes alerts, by the kind of channel."""
    private = settings.allow_private_networks
    return {
        AlertChannelKind.WEBHOOK: WebhookSender(allow_private=private),
        AlertChannelKind.ALERTMANAGER: AlertmanagerSender(allow_private=private),
    }


async def _check_key(vault: Vault) -> None:
    """What one process seals and signs, all others must open: the first one's key is everybody's."""
    try:
        await db.execute(
            "INSERT INTO installation (key_fingerprint) VALUES ($1) ON CONFLICT DO NOTHING", vault.fingerprint
        )
    except asyncpg.UndefinedTableError:
        raise Unavailable("The database is not up to date: run `quarterdeck migrate` first.") from None
    if await db.fetchval("SELECT key_fingerprint FROM installation") != vault.fingerprint:
        raise Unavailable(
            "This process has another key than the installation: give all of them the same QUARTERDECK_SECRET_KEY, "
            "or copy secret.key from the data folder of the first. Where that key is lost: `DELETE FROM installation` "
            "in the database, start again, and enter stored secrets again."
        )


async def _keep_house() -> None:
    while True:
        for step in _HOUSEKEEPING:
            try:
                await step()
            except Exception:
                # What comes after it shall not wait for whoever mends it.
                logger.exception("Housekeeping (%s) failed; it is tried again in an hour.", step.__qualname__)
        await asyncio.sleep(HOUSEKEEPING_SECONDS)


async def _forget_idempotency_keys() -> None:
    await db.execute("DELETE FROM idempotency_keys WHERE created_at < now() - interval '7 days'")


_HOUSEKEEPING: tuple[Callable[[], Awaitable[object]], ...] = (
    remove_stale_credentials,
    _forget_idempotency_keys,
    prune_session_changes,
    prune_notifications,
    prune_spending,
    retention.drop_old,
    retention.forget_set_aside,
    retention.compress,
    prune_reports,
    prune_monitors,
)
