"""The texts of a template with the values of its parameters: title, labels, system prompt and messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from core.errors import BadInput, QuarterdeckError
from services.parts import parts
from services.sessions.messages import check_message
from services.templates.parameters import properties
from services.templates.rendering import render, undeclared
from services.templates.spec import TemplateSpec

SCRIPT = "script"
"""The runtime without a model: it is sent the template's playbook, where there is one."""

_LONGEST_TITLE = 200


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts as a session gets them."""

    title: str | None
    labels: Mapping[str, str]
    system_prompt: str | None
    messages: Sequence[str]


def rendered(spec: TemplateSpec, runtime: str, values: Mapping[str, Any]) -> Texts:
    """The template's texts for a session with this runtime. Raises BadInput for what cannot be sent, with its place in
    the template."""
    given = dict.fromkeys(properties(spec.parameters)) | dict(values)
    title = None if spec.title is None else " ".join(render(spec.title, given).split())
    messages = messages_for(spec, runtime)
    problems = _problems((field, partial(_message, text, runtime, given)) for field, text in messages)
    if problems:
        raise BadInput.of_fields(problems)
    return Texts(
        title if title is None or len(title) <= _LONGEST_TITLE else title[: _LONGEST_TITLE - 1] + "…",
        {name: render(value, given) for name, value in spec.labels.items()},
        None if spec.system_prompt is None else render(spec.system_prompt, given),
        [_message(text, runtime, given) for _, text in messages],
    )


def messages_for(spec: TemplateSpec, runtime: str) -> list[tuple[str, str]]:
    """What is sent with this runtime, as (field, text)."""
    if runtime == SCRIPT and spec.playbook is not None:
        return [("playbook", spec.playbook)]
    return [(f"messages.{index}", text) for index, text in enumerate(spec.messages)]


def against_texts(spec: TemplateSpec) -> list[tuple[str, str]]:
    """(field, problem) of each text that refers to what is no parameter, or is a program that cannot run; the fields
    are the template's."""
    declared = dict.fromkeys(properties(spec.parameters))
    script = parts().runtimes[SCRIPT]
    texts = [("title", spec.title), ("systemPrompt", spec.system_prompt)]
    texts += [(f"labels.{name}", value) for name, value in spec.labels.items()]
    programs = messages_for(spec, "") + ([] if spec.playbook is None else [("playbook", spec.playbook)])
    problems = _problems((field, partial(script.with_values, text, declared)) for field, text in programs)
    broken = {field for field, _ in problems}
    texts += [
        (field, text) for field, text in programs if field not in broken and script.with_values(text, declared) is None
    ]
    problems += undeclared([(field, text) for field, text in texts if text is not None], declared)
    return problems


def _message(text: str, runtime: str, values: Mapping[str, Any]) -> str:
    program = parts().runtimes[runtime].with_values(text, values)
    if program is None:
        program = render(text, values)
        if parts().runtimes[runtime].with_values(program, values) is not None:
            raise BadInput("With these values it would be a program of the runtime, which the template's is not.")
    check_message(program)
    parts().runtimes[runtime].validate(program)
    return program


def _problems(checks: Iterable[tuple[str, Callable[[], Any]]]) -> list[tuple[str, str]]:
    found = []
    for field, check in checks:
        try:
            check()
        except QuarterdeckError as error:
            found.append((field, error.message))
    return found
