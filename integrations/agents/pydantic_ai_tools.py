"""The session's toolbox as pydantic-ai sees it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ApprovalRequired, ToolFailed
from pydantic_ai.messages import BinaryContent, ToolReturn
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from integrations.agents.base import Decision, ToolCall, ToolResult, Verdict
from integrations.agents.tools.base import Tool
from integrations.agents.tools.toolbox import Granted, Refused, Toolbox, Undecided, model_names, result_text

# The toolbox checks arguments against the tool's own schema, and says more about what is wrong.
_ANY = SchemaValidator(core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema()))
_RETRIES_OF_BROKEN_JSON = 2


class ToolboxToolset(AbstractToolset[None]):
    """Calls go through the toolbox; what needs a human raises ApprovalRequired, which ends the run."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        self._tools: dict[str, Tool] | None = None

    @property
    def id(self) -> str | None:
        return "quarterdeck"

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:
        tools = await self._named()
        return {
            name: ToolsetTool(
                toolset=self,
                tool_def=ToolDefinition(
                    name=name, description=tool.description, parameters_json_schema=dict(tool.input_schema)
                ),
                max_retries=_RETRIES_OF_BROKEN_JSON,
                args_validator=_ANY,
            )
            for name, tool in tools.items()
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[None], tool: ToolsetTool[None]
    ) -> Any:
        assert ctx.tool_call_id is not None
        call = ToolCall(ctx.tool_call_id, (await self._named())[name].name, tool_args)
        if ctx.tool_call_approved:
            answer = self._toolbox.decided(call, Decision(Verdict.ALLOW))
        else:
            answer = await self._toolbox.request(call)
        match answer:
            case Undecided():
                raise ApprovalRequired
            case Refused(result):
                raise ToolFailed(result_text(result))
            case Granted():
                result = await self._toolbox.run(answer)
        if result.is_error:
            raise ToolFailed(result_text(result))
        return _for_model(result)

    async def _named(self) -> dict[str, Tool]:
        if self._tools is None:
            self._tools = model_names(await self._toolbox.tools())
        return self._tools


def _for_model(result: ToolResult) -> Any:
    """The text of a result, with its images beside it."""
    text = result_text(result)
    if result.truncated:
        text += "\n[The result was longer and has been cut.]"
    images = [block for block in result.content if block.get("type") == "image"]
    if not images:
        return text
    return ToolReturn(return_value=text, content=[part for block in images for part in _image(block)])


def _image(block: Any) -> list[BinaryContent]:
    try:
        data = base64.b64decode(block["data"], validate=True)
    except (KeyError, binascii.Error):
        return []
    return [BinaryContent(data=data, media_type=str(block.get("mimeType", "image/png")))]
