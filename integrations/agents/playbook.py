"""What the script runtime runs: one tool call, or a playbook in YAML.

    playbook: Check the repository
    variables: {branch: main}
    steps:
      - say: "Looking at {{ branch }}"
      - tool: git.git_log
        arguments: {repo_path: ., max_count: 3}
        expect: {contains: commit}
        save: log
      - approve: "Delete the notes? The log says: {{ log }}"
      - tool: shell
        arguments: {command: rm notes.txt}
        expect: [{isError: false}, {path: $.exitCode, equals: 0}]

A step has one of `say`, `tool`, `approve`; a `tool` step may have `approve` too, which asks before that
very call. `save` keeps a result: `{{ log }}` is its text, `{{ log.data.x[0] }}` a part of its structured
content (or of its text, where that is JSON), `{{ log.isError }}` whether it failed. Substitution happens
in parsed values and never makes YAML or JSON anew, so that a tool's output stays data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from core.errors import BadInput
from core.yaml_text import YamlProblems, bounded_events

MAX_STEPS = 200
MAX_SAVED_CHARACTERS = 64 * 1024
_MAX_DEPTH = 50
_MAX_NODES = 20_000

_REFERENCE = re.compile(r"\{\{\s*([A-Za-z_]\w*)((?:\.\w+|\[\d+\])*)\s*\}\}")
_PART = re.compile(r"\.(\w+)|\[(\d+)\]")
_PATH = re.compile(r"\$((?:\.[\w-]+|\[\d+\])*)")
_PATH_PART = re.compile(r"\.([\w-]+)|\[(\d+)\]")
_COMMAND = re.compile(r"/tool(?:\s+(\S+)\s*(.*))?", re.DOTALL)
_PLAYBOOK = re.compile(r"^playbook[ \t]*:", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_]\w*")
_STEP_KEYS = {"say", "tool", "arguments", "expect", "save", "approve"}
_EXPECTATION_KEYS = {"contains", "equals", "path", "isError"}
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must be true of a result; every given part must hold."""

    contains: Any = _MISSING
    equals: Any = _MISSING
    path: str | None = None
    is_error: bool | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step; exactly one of `say`, `tool` and a bare `approve` is its work."""

    say: Any = None
    tool: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    approve: str | None = None
    expect: Sequence[Expectation] = ()
    save: str | None = None

    @property
    def tolerates_errors(self) -> bool:
        """It says itself whether the tool may fail."""
        return any(expectation.is_error is not None for expectation in self.expect)


@dataclass(frozen=True, slots=True)
class Script:
    """What a message asks for. `title` is None for a single `/tool` call."""

    title: str | None
    steps: Sequence[Step]
    variables: Mapping[str, Any] = field(default_factory=dict)


def parse(text: str) -> Script | None:
    """The script in a message, None where it is neither a `/tool` call nor a playbook.

    Raises BadInput, saying where, for one that cannot run.
    """
    text = text.strip()
    command = _COMMAND.fullmatch(text)
    if command is not None:
        return _command(command[1], command[2])
    if _PLAYBOOK.search(text):
        return _playbook(text)
    return None


def with_values(text: str, values: Mapping[str, Any]) -> str | None:
    """The script with these values as its variables, as a playbook; None where the text is no script.

    Only what it refers to goes in. A tool call becomes a playbook of one step, for only playbooks have variables.
    Raises BadInput as `parse` does.
    """
    text = text.strip()
    document: Any
    command = _COMMAND.fullmatch(text)
    if command is not None:
        step = _command(command[1], command[2]).steps[0]
        document = {"playbook": step.tool, "steps": [{"tool": step.tool, "arguments": dict(step.arguments)}]}
    elif _PLAYBOOK.search(text):
        document = _load(_without_fence(text))
        if not isinstance(document, dict) or not isinstance(document.get("variables") or {}, dict):
            raise BadInput("The playbook cannot run. It is a mapping, and so are its variables.", field="text")
    else:
        return None
    own = document.get("variables") or {}
    wanted = {found[1] for found in _REFERENCE.finditer(text)} | own.keys()
    if given := {name: value for name, value in values.items() if name in wanted}:
        document = {"playbook": document.get("playbook"), "variables": own | given} | {
            key: value for key, value in document.items() if key not in ("playbook", "variables")
        }
    problems = list(_Checker().check(document))
    if problems:
        raise BadInput("The playbook cannot run. " + "; ".join(problems[:10]), field="text", problems=problems)
    if not given:
        return text
    return yaml.dump(document, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False, width=10_000)


def substitute(value: Any, variables: Mapping[str, Any]) -> Any:
    """`value` with its `{{ … }}` replaced: a text that is nothing but a reference becomes the value itself."""
    if isinstance(value, str):
        whole = _REFERENCE.fullmatch(value.strip())
        if whole is not None:
            return _lookup(variables, whole)
        return _REFERENCE.sub(lambda found: _as_text(_lookup(variables, found)), value)
    if isinstance(value, Mapping):
        return {key: substitute(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [substitute(part, variables) for part in value]
    return value


def saved(text: str, structured: Any, is_error: bool) -> dict[str, Any]:
    """What `save` keeps of a result: bounded, for it is part of the stored state."""
    data = structured
    if data is None and len(text) <= MAX_SAVED_CHARACTERS:
        data = _json_or_none(text)
    if data is not None and len(json.dumps(data)) > MAX_SAVED_CHARACTERS:
        data = None
    return {"text": text[:MAX_SAVED_CHARACTERS], "data": data, "isError": is_error}


def unmet(expectation: Expectation, result: Mapping[str, Any], variables: Mapping[str, Any]) -> str | None:
    """Why a result (as `saved` keeps it) does not meet an expectation; None where it does."""
    if expectation.is_error is not None and result["isError"] is not expectation.is_error:
        return "the tool failed" if result["isError"] else "the tool did not fail"
    subject: Any = result["text"]
    where = "the result"
    if expectation.path is not None:
        where = expectation.path
        subject = _follow(result["data"], _parts(_PATH_PART, expectation.path[1:]))
        if subject is _MISSING:
            return f"the result has no {expectation.path}"
    if expectation.equals is not _MISSING:
        wanted = substitute(expectation.equals, variables)
        same = subject == wanted
        if isinstance(subject, str) and isinstance(wanted, str):
            same = subject.strip() == wanted.strip()
        if not same:
            return f"{where} is {_short(subject)}, not {_short(wanted)}"
    if expectation.contains is not _MISSING:
        wanted = substitute(expectation.contains, variables)
        if isinstance(subject, list):
            if wanted not in subject:
                return f"{where} does not contain {_short(wanted)}"
        elif _as_text(wanted) not in _as_text(subject):
            return f"{where} does not contain {_short(wanted)}; it is {_short(subject)}"
    return None


def _command(name: str | None, rest: str | None) -> Script:
    if not name:
        raise BadInput("A tool call looks like this: /tool NAME {json}", field="text")
    try:
        arguments = json.loads(rest, parse_constant=_no_constant) if rest else {}
    except json.JSONDecodeError as error:
        raise BadInput(
            f"The arguments of {name} are not valid JSON: {error.msg}, at line {error.lineno}, column {error.colno}.",
            field="text",
        ) from None
    except (RecursionError, ValueError) as error:
        raise BadInput(f"The arguments of {name} are not valid JSON: {error}.", field="text") from None
    if not isinstance(arguments, dict):
        raise BadInput(f'The arguments of {name} must be a JSON object, such as {{"path": "."}}.', field="text")
    return Script(title=None, steps=[Step(tool=name, arguments=arguments)])


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _playbook(text: str) -> Script:
    document = _load(_without_fence(text))
    problems = list(_Checker().check(document))
    if problems:
        raise BadInput("The playbook cannot run. " + "; ".join(problems[:10]), field="text", problems=problems)
    return Script(
        title=str(document["playbook"]),
        variables=document.get("variables") or {},
        steps=[_step(step) for step in document["steps"]],
    )


def _without_fence(text: str) -> str:
    return re.sub(r"\A```\w*\n|\n```\s*\Z", "", text)


def _load(text: str) -> Any:
    try:
        for _ in bounded_events(text, levels=_MAX_DEPTH, parts=_MAX_NODES):
            pass
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except YamlProblems as error:
        [problem] = error.problems
        raise BadInput(
            f"The playbook is not taken as YAML: {problem.message}, at line {problem.line}, column {problem.column}.",
            field="text",
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadInput(f"The playbook is not valid YAML: {error}.", field="text") from None


class _Checker:
    """Finds what is wrong with a parsed playbook, each problem with its place."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def check(self, document: Any) -> Iterator[str]:
        if not isinstance(document, dict) or not isinstance(document.get("playbook"), str):
            yield "playbook: give it a title"
            return
        yield from _unknown_keys(document, {"playbook", "variables", "steps"}, "")
        variables = document.get("variables") or {}
        if not isinstance(variables, dict) or not all(isinstance(k, str) and _NAME.fullmatch(k) for k in variables):
            yield "variables: a mapping of names to values"
        else:
            self._known |= set(variables)
            if not _is_json(variables):
                yield "variables: only what JSON can hold (quote dates)"
        steps = document.get("steps")
        if not isinstance(steps, list) or not steps:
            yield "steps: a list of at least one step"
            return
        if len(steps) > MAX_STEPS:
            yield f"steps: at most {MAX_STEPS}"
        for index, step in enumerate(steps):
            yield from self._step(step, f"steps[{index}]")

    def _step(self, step: Any, at: str) -> Iterator[str]:
        if not isinstance(step, dict):
            yield f"{at}: a mapping with say, tool or approve"
            return
        yield from _unknown_keys(step, _STEP_KEYS, at)
        if ("say" in step) + ("tool" in step) != 1 and not ("approve" in step and "say" not in step):
            yield f"{at}: exactly one of say, tool, approve"
        for key in ("tool", "approve", "save"):
            if key in step and (not isinstance(step[key], str) or not step[key].strip()):
                yield f"{at}.{key}: a text"
        if "tool" not in step:
            for key in ("arguments", "expect", "save"):
                if key in step:
                    yield f"{at}.{key}: only with tool"
        if not isinstance(step.get("arguments") or {}, dict):
            yield f"{at}.arguments: a mapping"
        elif not _is_json(step.get("arguments")):
            yield f"{at}.arguments: only what JSON can hold (quote dates)"
        for key in ("say", "arguments", "approve"):
            yield from self._references(step.get(key), f"{at}.{key}")
        yield from self._expectations(step.get("expect"), f"{at}.expect")
        name = step.get("save")
        if isinstance(name, str):
            if not _NAME.fullmatch(name):
                yield f"{at}.save: a name of letters, digits and underscores"
            self._known.add(name)

    def _expectations(self, given: Any, at: str) -> Iterator[str]:
        if given is None:
            return
        for index, expectation in enumerate(given if isinstance(given, list) else [given]):
            place = f"{at}[{index}]" if isinstance(given, list) else at
            if not isinstance(expectation, dict) or not expectation:
                yield f"{place}: a mapping with contains, equals, path or isError"
                continue
            yield from _unknown_keys(expectation, _EXPECTATION_KEYS, place)
            path = expectation.get("path")
            if path is not None and not (isinstance(path, str) and _PATH.fullmatch(path)):
                yield f"{place}.path: such as $.items[0].name"
            if not isinstance(expectation.get("isError", False), bool):
                yield f"{place}.isError: true or false"
            for key in ("contains", "equals"):
                yield from self._references(expectation.get(key), f"{place}.{key}")

    def _references(self, value: Any, at: str) -> Iterator[str]:
        if isinstance(value, str):
            for found in _REFERENCE.finditer(value):
                if found[1] not in self._known:
                    yield f"{at}: nothing named {found[1]} is known at this step"
        elif isinstance(value, dict):
            for key, part in value.items():
                yield from self._references(part, f"{at}.{key}")
        elif isinstance(value, list):
            for index, part in enumerate(value):
                yield from self._references(part, f"{at}[{index}]")


def _unknown_keys(mapping: Mapping[Any, Any], known: set[str], at: str) -> Iterator[str]:
    for key in mapping:
        if key not in known:
            yield f"{at}{'.' if at else ''}{key}: not known here; it takes {', '.join(sorted(known))}"


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _step(step: Mapping[str, Any]) -> Step:
    given = step.get("expect")
    expectations = given if isinstance(given, list) else [given] if given else []
    return Step(
        say=step.get("say"),
        tool=step.get("tool"),
        arguments=step.get("arguments") or {},
        approve=step.get("approve"),
        save=step.get("save"),
        expect=[
            Expectation(
                contains=expectation.get("contains", _MISSING),
                equals=expectation.get("equals", _MISSING),
                path=expectation.get("path"),
                is_error=expectation.get("isError"),
            )
            for expectation in expectations
        ],
    )


def _lookup(variables: Mapping[str, Any], reference: re.Match[str]) -> Any:
    value = variables.get(reference[1])
    parts = _parts(_PART, reference[2])
    if isinstance(value, Mapping) and value.keys() == {"text", "data", "isError"}:
        if not parts:
            return value["text"]
        if parts[0] not in value:
            parts = ["data", *parts]
    found = _follow(value, parts)
    if found is _MISSING:
        raise BadInput(f"{reference[0]} is not there: {reference[1]} is {_short(value)}.")
    return found


def _parts(pattern: re.Pattern[str], path: str) -> list[str | int]:
    return [int(found[2]) if found[2] else found[1] for found in pattern.finditer(path)]


def _follow(value: Any, parts: Sequence[str | int]) -> Any:
    for part in parts:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "…"
