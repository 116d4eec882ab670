"""What a span says: a request to a model, a call of a tool, or the work of an agent.

Sources: OpenTelemetry's semantic conventions for generative AI, with the names that they had before 1.37; the
OpenInference specification, as Phoenix' instrumentation writes it; spans of Claude Code.
"""

from __future__ import annotations

from typing import Any

from integrations.otlp.base import Origin, Span
from services.metrics.otlp.reading import (
    Facts,
    Rejected,
    Source,
    count_of,
    fact_id,
    name_of,
    opentelemetry,
    text_of,
    time_of,
)

WANTED = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.system",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.prompt_tokens",
        "gen_ai.usage.completion_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.tool.name",
        "gen_ai.agent.name",
        "error.type",
        "openinference.span.kind",
        "llm.model_name",
        "llm.provider",
        "llm.system",
        "llm.token_count.prompt",
        "llm.token_count.completion",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_write",
        "tool.name",
        "user.id",
        "user.email",
        "enduser.id",
        "service.name",
    }
)
"""The attributes that are read, of spans and of resources."""

_MODEL_OPERATIONS = {"chat", "generate_content", "text_completion", "embeddings", "LLM", "EMBEDDING"}
_TOOL_OPERATIONS = {"execute_tool", "TOOL"}
_AGENT_OPERATIONS = {"invoke_agent", "invoke_workflow", "AGENT"}
_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion")
_CACHE_READ = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
_CACHE_WRITE = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
)


def facts_of(span: Span, source: Source, facts: Facts) -> None:
    """Add what the span says to the facts; nothing where it says nothing of agents. Raises Rejected."""
    operation = _operation(span)
    if operation in _MODEL_OPERATIONS:
        if source.usage_from_spans:
            facts.add("usage_facts", _common(span, source) | _usage(span))
        else:
            facts.superseded += 1
    elif operation in _TOOL_OPERATIONS:
        facts.add("tool_facts", _common(span, source) | _tool(span))
    elif operation in _AGENT_OPERATIONS:
        facts.add("run_facts", _common(span, source) | _run(span))


def tells_usage(span: Span) -> bool:
    """Whether the span is of a request to a model, and so says what was used, as metrics may do, too."""
    return _operation(span) in _MODEL_OPERATIONS


def model_of(span: Span) -> tuple[str | None, str]:
    """Provider and model that a request went to."""
    given = span.attributes
    model = text_of(given, "gen_ai.response.model", "gen_ai.request.model", "llm.model_name") or "(unknown)"
    return text_of(given, "gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"), model


def conventions_of(origin: Origin) -> str:
    """Which conventions a span follows: `openinference`, or a version of OpenTelemetry's."""
    return "openinference" if "openinference" in origin.scope else opentelemetry(origin)


def _operation(span: Span) -> str | None:
    """What the span is of, in the words of its conventions; None where it says nothing of agents."""
    return text_of(span.attributes, "gen_ai.operation.name", "openinference.span.kind")


def _common(span: Span, source: Source) -> dict[str, Any]:
    if not span.trace_id or not span.span_id:
        raise Rejected("a span has no id")
    return {
        "at": time_of(span.end, source.now),
        "id": fact_id(span.trace_id, span.span_id),
        "run_id": fact_id(span.trace_id),
        "user_id": source.user_of(span.attributes, span.origin.resource),
        "service": source.service,
        "conventions": conventions_of(span.origin),
    }


def _usage(span: Span) -> dict[str, Any]:
    given = span.attributes
    total, output = count_of(given, _INPUT), count_of(given, _OUTPUT)
    read, written = count_of(given, _CACHE_READ), count_of(given, _CACHE_WRITE)
    provider, model = model_of(span)
    return {
        "model": model,
        "provider": provider,
        "requests": 1,
        "input_tokens": uncached(total, read, written),
        "output_tokens": output,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "duration_ms": _milliseconds(span),
    }


def uncached(total: int | None, read: int | None, written: int | None) -> int | None:
    """The input neither read from a cache nor written to one.

    The conventions say that the number of input tokens includes those; some instrumentation hands on a provider's
    number that does not, which shows where it is smaller than its parts.
    """
    if total is None:
        return None
    cached = (read or 0) + (written or 0)
    return total - cached if total >= cached else total


def _tool(span: Span) -> dict[str, Any]:
    server, tool = name_of(text_of(span.attributes, "gen_ai.tool.name", "tool.name") or span.name)
    failed = _failed(span)
    return {
        "tool": tool,
        "server": server,
        "outcome": "FAILED" if failed else "SUCCEEDED",
        "duration_ms": _milliseconds(span),
        "model": text_of(span.attributes, "gen_ai.request.model"),
        "error_kind": text_of(span.attributes, "error.type") if failed else None,
    }


def _run(span: Span) -> dict[str, Any]:
    failed = _failed(span)
    return {
        "model": text_of(span.attributes, "gen_ai.response.model", "gen_ai.request.model", "llm.model_name"),
        "outcome": "FAILED" if failed else "FINISHED",
        "error_code": text_of(span.attributes, "error.type") if failed else None,
        "duration_ms": _milliseconds(span),
    }


def _failed(span: Span) -> bool:
    return span.failed or bool(span.attributes.get("error.type"))


def _milliseconds(span: Span) -> float | None:
    """None where the clock was set back within the span, or it does not say when it began."""
    return (span.end - span.start) / 1e6 if 0 < span.start <= span.end else None
