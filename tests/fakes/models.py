"""Fake model APIs: Anthropic Messages and OpenAI chat completions, scripted by the last text of the user.

    TOOL name {json}       call a tool, one line for each; then answer with what the tools gave
    LOOP name {json}       call the tool again after every result, without end
    SLOW n                 n words, 50 ms apart
    THINK text             reason first, then echo the text
    ERR status             answer with that HTTP status
    RATE n                 answer 429 with `retry-after` n times, then succeed
    OVERFLOW               the context is too long
    MALFORMED              a stream that is not what it should be
    DROP                   close the connection in the middle of the stream
    HISTORY                say how many messages came, and their roles
    TOOLS / SYSTEM         say which tools, or which system prompt, came

Anything else is echoed. Every request is kept in `requests`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SECRET = "sk-test-0123456789abcdef"

INPUT_TOKENS = 100
OUTPUT_TOKENS = 20
CACHE_READ_TOKENS = 50
CACHE_WRITE_TOKENS = 10


@dataclass(frozen=True)
class Asked:
    """A request, whatever the API."""

    text: str
    """The last text of the user."""
    results: Sequence[str]
    """Tool results after it."""
    roles: Sequence[str]
    tools: Sequence[str]
    system: str


@dataclass(frozen=True)
class Plan:
    """What to answer."""

    text: str = ""
    thinking: str = ""
    calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    delay: float = 0.0
    status: int = 200
    fault: str = ""


@dataclass
class FakeModels:
    """Both APIs in one app; `url` is where it listens."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    aborted: int = 0
    limited: int = 0

    def plan(self, asked: Asked) -> Plan:
        word, _, rest = asked.text.partition(" ")
        if word == "LOOP":
            return Plan(text="again", calls=_calls(asked.text, "LOOP"))
        if asked.results:
            return Plan(text="tool results: " + " | ".join(asked.results))
        match word:
            case "TOOL":
                return Plan(text="I will call tools.", calls=_calls(asked.text, "TOOL"))
            case "SLOW":
                return Plan(text=" ".join(f"w{number}" for number in range(int(rest))), delay=0.05)
            case "THINK":
                return Plan(text=f"echo: {rest}", thinking="Let me think.")
            case "ERR":
                return Plan(status=int(rest))
            case "RATE":
                self.limited += 1
                return Plan(status=429) if self.limited <= int(rest) else Plan(text="after waiting")
            case "OVERFLOW":
                return Plan(status=400, fault="overflow")
            case "MALFORMED" | "DROP":
                return Plan(text="begun ", fault=word.lower())
            case "HISTORY":
                return Plan(text=f"{len(asked.roles)} messages: {' '.join(asked.roles)}")
            case "TOOLS":
                return Plan(text=" ".join(asked.tools))
            case "SYSTEM":
                return Plan(text=f"system: {asked.system}")
        return Plan(text=f"echo: {asked.text}")

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/messages", self._anthropic, methods=["POST"]),
                Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
                Route("/v1/chat/completions", self._openai, methods=["POST"]),
                Route("/{rest:path}", self._nothing, methods=["GET", "POST", "HEAD"]),
            ]
        )

    async def _nothing(self, request: Request) -> Response:
        return JSONResponse(
            {"type": "error", "error": {"type": "not_found_error", "message": "not here"}}, status_code=404
        )

    async def _count(self, request: Request) -> Response:
        return JSONResponse({"input_tokens": INPUT_TOKENS})

    # -- Anthropic

    async def _anthropic(self, request: Request) -> Response:
        body = await self._note(request)
        plan = self.plan(_asked_anthropic(body))
        if plan.status != 200:
            return JSONResponse(
                {"type": "error", "error": _anthropic_error(plan)}, status_code=plan.status, headers=_headers(plan)
            )
        content = _anthropic_content(plan)
        stop = "tool_use" if plan.calls else "end_turn"
        head: dict[str, Any] = {
            "id": f"msg_{uuid4().hex[:20]}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": INPUT_TOKENS,
                "output_tokens": 1,
                "cache_creation_input_tokens": CACHE_WRITE_TOKENS,
                "cache_read_input_tokens": CACHE_READ_TOKENS,
            },
        }
        if not body.get("stream"):
            usage = {**head["usage"], "output_tokens": OUTPUT_TOKENS}
            return JSONResponse({**head, "content": content, "stop_reason": stop, "usage": usage})

        async def events() -> AsyncIterator[bytes]:
            yield _sse("message_start", {"message": head})
            for index, block in enumerate(content):
                kind = block["type"]
                empty: dict[str, Any] = {"input": {}} if kind == "tool_use" else {kind: ""}
                yield _sse("content_block_start", {"index": index, "content_block": {**block, **empty}})
                if kind == "tool_use":
                    delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
                    yield _sse("content_block_delta", {"index": index, "delta": delta})
                else:
                    async for piece in _pieces(block[kind], plan):
                        yield _sse(
                            "content_block_delta", {"index": index, "delta": {"type": f"{kind}_delta", kind: piece}}
                        )
                if plan.fault == "malformed":
                    yield b"event: content_block_delta\ndata: {not json\n\n"
                if plan.fault == "drop":
                    raise ConnectionResetError
                yield _sse("content_block_stop", {"index": index})
            end = {"stop_reason": stop, "stop_sequence": None}
            yield _sse("message_delta", {"delta": end, "usage": {"output_tokens": OUTPUT_TOKENS}})
            yield _sse("message_stop", {})

        return StreamingResponse(self._watched(events()), media_type="text/event-stream")

    # -- OpenAI

    async def _openai(self, request: Request) -> Response:
        body = await self._note(request)
        plan = self.plan(_asked_openai(body))
        if plan.status != 200:
            return JSONResponse({"error": _openai_error(plan)}, status_code=plan.status, headers=_headers(plan))
        usage = {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
            "prompt_tokens_details": {"cached_tokens": CACHE_READ_TOKENS},
        }
        head = {"id": f"chatcmpl-{uuid4().hex}", "created": 1, "model": body["model"]}
        calls = [
            {
                "index": n,
                "id": f"call_{uuid4().hex[:16]}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for n, (name, arguments) in enumerate(plan.calls)
        ]
        stop = "tool_calls" if calls else "stop"
        if not body.get("stream"):
            message = {"role": "assistant", "content": plan.text, **({"tool_calls": calls} if calls else {})}
            choice = {"index": 0, "message": message, "finish_reason": stop}
            return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

        def chunk(delta: Mapping[str, Any], finish: str | None = None, **rest: Any) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return _data({**head, "object": "chat.completion.chunk", "choices": [choice], **rest})

        async def events() -> AsyncIterator[bytes]:
            yield chunk({"role": "assistant", "content": ""})
            async for piece in _pieces(plan.text, plan):
                yield chunk({"content": piece})
            if plan.fault == "malformed":
                yield b"data: {not json\n\n"
            if plan.fault == "drop":
                raise ConnectionResetError
            if calls:
                yield chunk({"tool_calls": calls})
            yield chunk({}, stop)
            yield _data({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
            yield b"data: [DONE]\n\n"

        return StreamingResponse(self._watched(events()), media_type="text/event-stream")

    async def _note(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        return body

    async def _watched(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        done = False
        try:
            async for event in events:
                yield event
            done = True
        finally:
            self.aborted += not done


@asynccontextmanager
async def fake_models() -> AsyncIterator[FakeModels]:
    """Run both APIs on a loopback port."""
    fake = FakeModels()
    server = uvicorn.Server(uvicorn.Config(fake.app(), host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.01)
    fake.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.should_exit = True
        server.force_exit = True
        await serving


def _calls(text: str, word: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (name, json.loads(given)) for name, given in re.findall(rf"^{word} (\S+) (\{{.*\}})\s*$", text, re.MULTILINE)
    ]


async def _pieces(text: str, plan: Plan) -> AsyncIterator[str]:
    for piece in re.findall(r"\S+\s*", text):
        yield piece
        if plan.delay:
            await asyncio.sleep(plan.delay)


def _sse(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def _data(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _headers(plan: Plan) -> dict[str, str]:
    return {"retry-after": "0.1"} if plan.status == 429 else {}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(block.get("text", "") for block in content or [] if block.get("type") == "text")


def _asked_anthropic(body: Mapping[str, Any]) -> Asked:
    messages = body["messages"]
    text = ""
    results: list[str] = []
    for message in messages:
        if message["role"] != "user":
            continue
        blocks = (
            message["content"]
            if isinstance(message["content"], list)
            else [{"type": "text", "text": message["content"]}]
        )
        for block in blocks:
            if block["type"] == "text" and not block["text"].startswith("<system-reminder>"):
                text, results = block["text"], []
            elif block["type"] == "tool_result":
                results.append(("ERROR " if block.get("is_error") else "OK ") + _text(block.get("content"))[:2000])
    system = _text(body.get("system", ""))
    return Asked(text, results, [m["role"] for m in messages], [t["name"] for t in body.get("tools", [])], system)


def _asked_openai(body: Mapping[str, Any]) -> Asked:
    messages = body["messages"]
    text = ""
    results: list[str] = []
    for message in messages:
        if message["role"] == "user":
            text, results = _text(message["content"]), []
        elif message["role"] == "tool":
            results.append("OK " + _text(message["content"])[:2000])
    system = " ".join(_text(m["content"]) for m in messages if m["role"] in ("system", "developer"))
    tools = [tool["function"]["name"] for tool in body.get("tools", [])]
    return Asked(text, results, [m["role"] for m in messages], tools, system)


def _anthropic_content(plan: Plan) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    if plan.thinking:
        content.append({"type": "thinking", "thinking": plan.thinking, "signature": "sig"})
    content.append({"type": "text", "text": plan.text})
    for name, arguments in plan.calls:
        content.append({"type": "tool_use", "id": f"toolu_{uuid4().hex[:20]}", "name": name, "input": dict(arguments)})
    return content


def _anthropic_error(plan: Plan) -> dict[str, str]:
    if plan.fault == "overflow":
        return {"type": "invalid_request_error", "message": "prompt is too long: 250000 tokens > 200000 maximum"}
    kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error", 500: "api_error"}
    return {"type": kinds.get(plan.status, "invalid_request_error"), "message": f"scripted, with key {SECRET}"}


def _openai_error(plan: Plan) -> dict[str, Any]:
    if plan.fault == "overflow":
        message = "This model's maximum context length is 128000 tokens."
        return {
            "message": message,
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(plan.status)
    return {"message": f"scripted, with key {SECRET}", "type": "error", "param": None, "code": code}
