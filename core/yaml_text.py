"""YAML that people write by hand and keep in repositories: plain data, read within bounds, and written one way.

What is read is what JSON can hold. There are no anchors, aliases, merge keys and tags, no key stands twice in a
mapping, and what versions of YAML read differently (`no`, `017`, `1:30`, `2026-01-31`) is refused instead of guessed
at. Every part knows its line and column. Source: YAML 1.2.2, with the scalars of its JSON schema (10.2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Where something stands in a document: keys and indexes, from the outside."""

MOST_PROBLEMS = 20
"""That are told of one text."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {name: value for value in (True, False) for name in (str(value), str(value).lower(), str(value).upper())}
_READ_DIFFERENTLY = re.compile(
    r"(?i:yes|no|on|off)"
    r"|[-+]?0(?:x[0-9a-fA-F_]+|o[0-7_]+|b[01_]+)|[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|[-+]?\.(?i:inf)|\.(?i:nan)"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ]\S.*)?"
    r"|="
)
_LONGEST_NUMBER = 40
_MOST_TOLD = 60
"""Characters of what somebody wrote that an error repeats."""

_PLAIN = re.compile(r"[^\W\d_](?:(?:[\w ./@+()*-]|:(?=[\w/]))*[\w./@+()*-])?|/[\w./-]*")
"""Texts that are surely nothing but text without quotes. Others that would be, too, get quotes: no harm is done."""
_NOT_IN_LITERALS = re.compile(
    "[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010fffd]|[\u2028\u2029]"
)
_ESCAPED = re.compile("[\x7f-\x9f\xad\u2028\u2029\ufeff\ufffe\uffff]|[\U0001fffe\U0001ffff\U0010fffe\U0010ffff]")
_LONGEST_SIMPLE_KEY = 500
"""YAML takes keys of 1024 bytes before a colon; what is longer is written with a question mark."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a text, and where; lines and columns count from 1, in characters."""

    message: str
    line: int
    column: int
    path: Path = ()


class YamlProblems(Exception):
    """A text that is not read. Its problems are in the order of the text."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"line {each.line}, column {each.column}: {each.message}" for each in problems))
        self.problems = list(problems)


@dataclass(slots=True)
class Document:
    """One document of a text."""

    value: Any = None
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column of each part; of a mapping's item they are those of its key."""
    spellings: dict[Path, str] = field(default_factory=dict)
    """Of the numbers, booleans and nulls: as they were written."""

    def place(self, path: Sequence[str | int]) -> tuple[int, int]:
        """Line and column of a part, or of what it would be in."""
        at = tuple(path)
        while at not in self.places and at:
            at = at[:-1]
        return self.places.get(at, (1, 1))


def bounded_events(text: str, *, levels: int, parts: int) -> Iterator[yaml.Event]:
    """What a parser reads in a text, as it goes; nothing is built yet. Raises YamlProblems for what is not YAML, for
    aliases, which make a few lines into gigabytes, and beyond so many levels and parts."""
    depth = 0
    try:
        for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise _at(event, f"there are no aliases here, such as *{str(event.anchor)[:_MOST_TOLD]}")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > levels:
                raise _at(event, f"it is nested too deeply: at most {levels} levels")
            if count > parts:
                raise _at(event, f"it has too many parts: at most {parts:,}")
            yield event
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise YamlProblems([Problem(error.problem or str(error), line, column)]) from None
    except yaml.reader.ReaderError as error:
        before = text.encode(errors="replace")[: max(error.position, 0)].decode(errors="replace")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        raise YamlProblems([Problem(str(error.reason), line, column)]) from None
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise YamlProblems([Problem("there is half of a surrogate pair", line, 1)]) from None


def read(text: str, *, levels: int, parts: int, documents: int) -> list[Document]:
    """The documents of a text; those that are empty are left out. Raises YamlProblems, with all of them where the text
    is YAML at all."""
    reader = _Reader()
    for event in bounded_events(text, levels=levels, parts=parts):
        reader.take(event)
        if len(reader.documents) > documents:
            raise _at(event, f"there are too many documents: at most {documents}")
        if len(reader.problems) >= MOST_PROBLEMS:
            break
    if reader.problems:
        raise YamlProblems(reader.problems)
    return [document for document in reader.documents if document.value is not None]


def write(value: Mapping[str, Any], *, literally: bool = True) -> str:
    """A mapping of JSON as YAML: in its own order, in blocks, with texts of several lines as they are, or in quotes.
    The same value always gives the same text, which `read` gives back, and any reader of YAML 1.1 or 1.2 reads alike.
    """
    return "\n".join(_Writer(literally).lines(value, 0) or ["{}"]) + "\n"


# -- reading


class _Reader:
    """Makes values of events, and notes places and problems."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.problems: list[Problem] = []
        self._open: list[_Collection] = []

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                if event.tags:
                    self._problem(event, (), "there are no tags here, so leave out %TAG")
                self.documents.append(Document())
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._begin(event, {})
            case yaml.SequenceStartEvent():
                self._begin(event, [])
            case yaml.CollectionEndEvent():
                self._open.pop()

    def _begin(self, event: yaml.CollectionStartEvent, value: Any) -> None:
        path, wants_key = self._path()
        self._check(event, path)
        if wants_key:
            self._problem(event, path, "a key is text, not a list or mapping")
        self._put(event, path, value, wants_key)
        self._open.append(_Collection(path, value))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        path, wants_key = self._path()
        self._check(event, path)
        value: Any = event.value
        if event.implicit[0]:
            try:
                value = _plain(event.value)
            except ValueError as error:
                self._problem(event, path, str(error))
        if wants_key:
            if event.implicit[0] and event.value == "<<":
                self._problem(event, path, "there are no merge keys (<<) here")
            elif not isinstance(value, str):
                self._problem(event, path, f"a key is text: put {event.value[:_MOST_TOLD] or 'it'} into quotes")
        elif not isinstance(value, str):
            self.documents[-1].spellings[path] = event.value
        self._put(event, path, value, wants_key)

    def _path(self) -> tuple[Path, bool]:
        """Where the next part goes, and whether it is a key."""
        if not self._open:
            return (), False
        inner = self._open[-1]
        if isinstance(inner.value, list):
            return (*inner.path, len(inner.value)), False
        return (inner.path, True) if inner.key is None else ((*inner.path, inner.key), False)

    def _put(self, event: yaml.NodeEvent, path: Path, value: Any, is_key: bool) -> None:
        document = self.documents[-1]
        if not self._open:
            document.value = value
        elif is_key:
            self._key(event, str(value))
            return
        elif isinstance(self._open[-1].value, list):
            self._open[-1].value.append(value)
        else:
            inner = self._open[-1]
            assert inner.key is not None
            inner.value[inner.key], inner.key = value, None
            return  # the key has the place
        document.places[path] = _place(event)

    def _key(self, event: yaml.NodeEvent, key: str) -> None:
        inner, document = self._open[-1], self.documents[-1]
        path = (*inner.path, key)
        if key in inner.value:
            line, _ = document.places[path]
            self._problem(event, path, f"{key[:_MOST_TOLD]} is here for the second time; the first is in line {line}")
        document.places[path] = _place(event)
        inner.key = key

    def _check(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, path: Path) -> None:
        if event.anchor is not None:
            self._problem(event, path, f"there are no anchors here, such as &{event.anchor[:_MOST_TOLD]}")
        if event.tag is not None:
            self._problem(event, path, f"there are no tags here, such as {event.tag[:_MOST_TOLD]}")

    def _problem(self, event: yaml.Event, path: Path, message: str) -> None:
        self.problems.append(Problem(message, *_place(event), path))


@dataclass(slots=True)
class _Collection:
    """A list or mapping that is being read."""

    path: Path
    value: Any
    key: str | None = None


def _plain(text: str) -> Any:
    """The value of a scalar without quotes. ValueError, saying what to do, where it could be read as another one."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text):
        return int(text) if _INTEGER.fullmatch(text) else float(text)
    if _READ_DIFFERENTLY.fullmatch(text):
        kind = "true or false" if text[0].isalpha() else "a decimal number such as 10 or 0.5"
        raise ValueError(
            f"{text[:_MOST_TOLD]} is read differently by different programs: put it into quotes, or write {kind}"
        )
    return text


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _at(event: yaml.Event, message: str) -> YamlProblems:
    return YamlProblems([Problem(message, *_place(event))])


# -- writing


class _Writer:
    """Writes values in lines."""

    def __init__(self, literally: bool) -> None:
        self._literally = literally

    def lines(self, value: Any, indent: int) -> list[str]:
        """A mapping or list that is not empty, each line with its indentation."""
        pad, found = " " * indent, list[str]()
        if isinstance(value, Mapping):
            for key, item in value.items():
                name = _scalar(str(key))
                if len(name.encode()) > _LONGEST_SIMPLE_KEY:
                    found.append(f"{pad}? {name}")
                    name = ""
                found += self._item(f"{pad}{name}:", item, indent)
        else:
            for item in value:
                if isinstance(item, Mapping | list | tuple) and item:
                    first, *rest = self.lines(item, indent + 2)
                    found += [f"{pad}- {first[indent + 2 :]}", *rest]
                else:
                    found += self._item(f"{pad}-", item, indent)
        return found

    def _item(self, prefix: str, value: Any, indent: int) -> list[str]:
        if isinstance(value, Mapping | list | tuple):
            if not value:
                return [f"{prefix} {'{}' if isinstance(value, Mapping) else '[]'}"]
            return [prefix, *self.lines(value, indent + 2)]
        if self._literally and isinstance(value, str) and _fits_literally(value):
            pad = " " * (indent + 2)
            *lines, last = value.split("\n")
            # Without a mark the text ends with one line break; `-` is none, `+` as many as there are.
            mark = "-" if last else "+" if not lines[-1] else ""
            return [
                f"{prefix} |{mark}",
                *(f"{pad}{line}" if line else "" for line in (*lines, *([last] if last else ()))),
            ]
        return [f"{prefix} {_scalar(value)}"]


def _fits_literally(text: str) -> bool:
    """Whether a text can stand in a block as it is, and begins so that its indentation is plain to see."""
    return "\n" in text and text[0] not in " \t\n" and not _NOT_IN_LITERALS.search(text)


def _scalar(value: Any) -> str:
    match value:
        case str():
            return value if _PLAIN.fullmatch(value) and _is_text(value) else _quoted(value)
        case float():
            text = repr(value)
            # What has an exponent and no point is a text in YAML 1.1.
            return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text
        case None | bool() | int():
            return json.dumps(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _is_text(text: str) -> bool:
    try:
        return isinstance(_plain(text), str) and text not in ("y", "Y", "n", "N")
    except ValueError:
        return False


def _quoted(text: str) -> str:
    """JSON's strings are YAML's, but for characters that only YAML does not let stand."""
    found = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(
        lambda seen: f"\\U{ord(seen[0]):08x}" if ord(seen[0]) > 0xFFFF else f"\\u{ord(seen[0]):04x}", found
    )
