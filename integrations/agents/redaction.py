"""Keeping keys out of what providers say."""

from __future__ import annotations

import re

from core.settings import Settings


def redacted(text: str, settings: Settings) -> str:
    """A provider's words without our keys: some repeat the key they refuse."""
    for secret in (settings.anthropic_api_key, settings.openai_api_key):
        if secret is not None:
            text = text.replace(secret.get_secret_value(), "[key]")
    return re.sub(r"\b(?:sk|pk|gsk|xai|key|Bearer)[-_ ][A-Za-z0-9_*.-]{8,}", "[key]", text)
