"""Removing what has served its purpose."""

from __future__ import annotations

from core import db


async def remove_stale_credentials() -> None:
    """Refused sign-ins of more than a day ago, and links and web sessions long over. For a worker, about hourly.

    Web sessions stay for 90 days: that an account signed in from an address spares it the throttle of all addresses.
    """
    await db.execute("DELETE FROM sign_in_failures WHERE at < now() - interval '1 day'")
    await db.execute("DELETE FROM sign_in_links WHERE expires_at < now() - interval '1 day'")
    await db.execute("DELETE FROM web_sessions WHERE expires_at < now() - interval '90 days'")
