"""The runtime `pydantic_ai`: any provider's model in this process, with the session's own tools."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from core.errors import BadInput
from core.settings import Settings
from integrations.agents.base import Hooks, ModelCheck, RuntimeConfig, RuntimeSession, RuntimeState
from integrations.agents.options import ExtraOptions
from integrations.agents.tools.toolbox import Toolbox, built_in_names
from integrations.mcp.base import McpServers
from integrations.sandbox.base import Sandbox

NAME = "pydantic_ai"


class PydanticAiOptions(ExtraOptions):
    """What `extra` may hold for this runtime."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1, description="Most tokens of one answer.")
    thinking: bool | None = Field(None, description="Whether the model reasons first, where it can.")


class PydanticAiRuntime:
    """Runtime `pydantic_ai`."""

    name = NAME

    def __init__(self, settings: Settings, servers: McpServers, sandbox: Sandbox) -> None:
        self._settings = settings
        self._servers = servers
        self._sandbox = sandbox

    def available(self) -> tuple[bool, str]:
        settings = self._settings
        if settings.default_model is not None:
            return True, f"Sessions that name no model use {settings.default_model}."
        if settings.anthropic_api_key or settings.openai_api_key or settings.openai_base_url:
            return True, "Sessions name their model: QUARTERDECK_DEFAULT_MODEL is not set."
        return False, (
            "No model is configured: set QUARTERDECK_DEFAULT_MODEL to provider:name, and the provider's key, "
            "such as QUARTERDECK_ANTHROPIC_API_KEY."
        )

    def validate(self, text: str) -> None:
        if not text.strip():
            raise BadInput("A message to a model needs some text.", field="text")

    def validate_options(self, extra: Mapping[str, Any]) -> None:
        PydanticAiOptions.read(extra)

    def built_in_tools(self) -> frozenset[str] | None:
        return built_in_names(self._settings, self._sandbox)

    async def check_model(self, name: str | None) -> ModelCheck | None:
        # As with `start`: importing takes its time, which others need not wait for.
        return await asyncio.to_thread(self._check_model, name or self._settings.default_model)

    def _check_model(self, name: str | None) -> ModelCheck:
        from integrations.agents.pydantic_ai_models import check_model

        if name is None:
            return ModelCheck("No model is named, and QUARTERDECK_DEFAULT_MODEL is not set.")
        return check_model(name, self._settings)

    def with_values(self, text: str, values: Mapping[str, Any]) -> str | None:
        return None

    async def start(self, config: RuntimeConfig, hooks: Hooks, state: RuntimeState | None) -> RuntimeSession:
        # The providers' libraries take longer to import than everything else of a start.
        from integrations.agents.pydantic_ai_session import Memory, PydanticAiSession

        toolbox = Toolbox(config, hooks, servers=self._servers, sandbox=self._sandbox, settings=self._settings)
        return PydanticAiSession(config, self._settings, toolbox, Memory.load(state))

    async def fork(self, state: RuntimeState, keep_user_messages: int) -> RuntimeState | None:
        from integrations.agents.pydantic_ai_session import forked

        return await forked(state, keep_user_messages)
