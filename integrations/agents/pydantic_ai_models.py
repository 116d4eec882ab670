"""Models for the pydantic_ai runtime: which provider, which endpoint, whose key, at what price."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import genai_prices
import httpx2
from genai_prices import Usage as PricedUsage
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.providers import Provider, infer_provider
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from core.errors import Unavailable
from core.settings import Settings
from integrations.agents.base import ModelCheck
from integrations.agents.redaction import redacted

_OPENAI = ("openai", "openai-chat", "openai-responses")
# A model may think for minutes before its first token; connecting takes no such time.
_TIMEOUT = httpx2.Timeout(10.0, read=600.0, write=60.0, pool=60.0)


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model and the HTTP client it uses; close it with the session."""

    model: Model
    http: httpx2.AsyncClient

    async def close(self) -> None:
        await self.http.aclose()


def open_model(name: str, settings: Settings) -> OpenModel:
    """The model called `provider:name`. Raises Unavailable where it is unknown or not configured.

    An OpenAI endpoint of one's own is spoken to by chat completions, which is what compatible servers offer;
    `openai-responses:name` asks for the other API.
    """
    provider, _, model = name.partition(":")
    if provider == "openai" and settings.openai_base_url is not None:
        name = f"openai-chat:{model}"
    http = httpx2.AsyncClient(timeout=_TIMEOUT)

    def provide(kind: str) -> Provider[Any]:
        if kind == "anthropic" and settings.anthropic_api_key is not None:
            key = settings.anthropic_api_key.get_secret_value()
            return AnthropicProvider(api_key=key, base_url=settings.anthropic_base_url, http_client=http)
        if kind in _OPENAI and (settings.openai_api_key is not None or settings.openai_base_url is not None):
            secret = settings.openai_api_key
            return OpenAIProvider(
                api_key=secret.get_secret_value() if secret is not None else "none",
                base_url=settings.openai_base_url,
                http_client=http,
            )
        return infer_provider(kind)

    try:
        return OpenModel(infer_model(name, provide), http)
    except (UserError, ValueError, ImportError) as error:
        raise Unavailable(f"The model {name!r} cannot be used: {redacted(str(error), settings)}") from error


def check_model(name: str, settings: Settings) -> ModelCheck:
    """What is known of a model; its provider is not asked. To be called in a thread of its own."""
    try:
        opened = open_model(name, settings)
    except Unavailable as error:
        return ModelCheck(error.message)
    try:
        return ModelCheck(priced=has_price(opened.model))
    finally:
        asyncio.run(opened.close())


def has_price(model: Model) -> bool:
    """Whether the price table knows the model, so that a budget can be kept."""
    try:
        genai_prices.calc_price(
            PricedUsage(input_tokens=1, output_tokens=1), model.model_name, provider_id=model.system
        )
    except LookupError:
        return False
    return True
