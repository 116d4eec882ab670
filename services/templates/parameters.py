"""Parameters of templates: which schemas they may have, and whether values fit.

A schema is JSON Schema 2020-12 of one object. Its properties are the parameters: texts, numbers, integers, booleans,
arrays of these, and secrets, which are names of the organisation's environment variables. References go to the
schema's own `$defs` alone, so nothing is ever fetched, and they make no circles. Patterns are those of Rust's regex
crate (which pydantic-core brings): they take time in proportion to the text, whatever they say, and have neither
look-around nor back references.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import jsonschema
import orjson
from jsonschema.protocols import Validator

from core.errors import BadInput, TooLarge
from services.environment import check_variable_name
from services.runs.storable import check_storable
from services.templates.parameter_validator import (
    DIALECT,
    FORMATS,
    against_metaschema,
    against_pattern,
    validator_of,
)
from services.templates.spec import ORDER, PARAMETER_NAME, SECRET

LARGEST_SCHEMA = 64 * 1024
"""Bytes of JSON."""
LARGEST_VALUES = 256 * 1024
"""Bytes of JSON that one session's parameters may have together."""
MOST_PARAMETERS = 100
MOST_CHOICES = 1000
MULTILINE = "x-quarterdeck-multiline"
"""The keyword of a text that has several lines: forms give it more room."""

_MOST_PROBLEMS = 100
_DEEPEST = 12
_DEFINITION = re.compile(r"#/\$defs/([A-Za-z0-9_.-]+)\Z")
_SCALARS = {"string", "number", "integer", "boolean"}
_ROOT = {"$schema", "$comment", "$defs", "type", "title", "description", "properties", "required"} | {
    "additionalProperties",
    ORDER,
}
_ANYWHERE = {"$ref", "$comment", "type", "title", "description", "default", "examples", "enum", "const", "oneOf"} | {
    "deprecated",
    SECRET,
    MULTILINE,
}
_OF_TYPE = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "boolean": set[str](),
    "array": {"items", "minItems", "maxItems", "uniqueItems"},
}
_KNOWN = _ANYWHERE.union(*_OF_TYPE.values())


def check_schema(schema: Mapping[str, Any], field: str) -> None:
    """Raises BadInput with all problems at once, each with its place below `field`; TooLarge for what is too large."""
    if not schema:
        return
    check_storable(schema, field=field)
    if len(orjson.dumps(schema)) > LARGEST_SCHEMA:
        raise TooLarge(f"A schema of parameters has at most {LARGEST_SCHEMA} bytes of JSON.", field=field)
    if _depth(schema) > _DEEPEST:
        raise BadInput(f"A schema of parameters is nested at most {_DEEPEST} levels deep.", field=field)
    # What the metaschema says is more exact where the shape is wrong; the rest can rely on the shape.
    problems = list(_against_metaschema(schema)) or list(_against_subset(schema)) or list(_against_defaults(schema))
    if problems:
        raise BadInput.of_fields([(".".join([field, *place]), said) for place, said in problems[:_MOST_PROBLEMS]])


def check_values(schema: Mapping[str, Any], values: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The values with the defaults of those left out, in the schema's order. `schema` has passed `check_schema`.

    Raises BadInput with all problems at once, each with its path below `field`.
    """
    if not isinstance(values, Mapping):
        raise BadInput("Give parameters as an object of names and values.", field=field)
    check_storable(values, field=field)
    if len(orjson.dumps(values)) > LARGEST_VALUES:
        raise TooLarge(f"Parameters have at most {LARGEST_VALUES} bytes of JSON together.", field=field)
    found: dict[str, Any] = {}
    for name, parameter in properties(schema).items():
        if name in values:
            found[name] = _as_declared(_with_items(schema, parameter), values[name])
        elif "default" in parameter:
            found[name] = parameter["default"]
    problems: list[_Problem] = [((name,), _unknown(schema)) for name in values if name not in properties(schema)]
    problems += _problems(validator_of(orjson.dumps(_closed(schema))), found)
    problems += [
        problem
        for name, parameter in properties(schema).items()
        if name in found and isinstance(found[name], str)
        for problem in _against_secret(parameter, found[name], (name,))
    ]
    if problems:
        raise BadInput.of_fields(
            [(".".join([field, *(part[:80] for part in place)]), said) for place, said in problems[:_MOST_PROBLEMS]]
        )
    return found


def properties(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parameters by name, in order, with what their references say put in place."""
    found = schema.get("properties", {})
    names = dict.fromkeys([*(name for name in schema.get(ORDER, ()) if name in found), *sorted(found)])
    return {name: resolved(schema, found[name]) for name in names}


def secrets_of(schema: Mapping[str, Any]) -> list[str]:
    """The names of parameters whose values are names of environment variables."""
    return [name for name, parameter in properties(schema).items() if parameter.get(SECRET) is True]


def resolved(schema: Mapping[str, Any], parameter: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter with its reference followed; what stands beside the reference is said of it, too, and wins."""
    found = dict(parameter)
    while reference := found.pop("$ref", None):
        found = dict(_definition(schema, reference) or {}) | found
    return found


# -- schemas

_Problem = tuple[tuple[str, ...], str]


def _against_metaschema(schema: Mapping[str, Any]) -> Iterator[_Problem]:
    for error in islice(against_metaschema(schema), _MOST_PROBLEMS):
        yield tuple(map(str, error.absolute_path)), _short(error.message)


def _against_subset(schema: Mapping[str, Any]) -> Iterator[_Problem]:
    yield from _unknown_keywords(schema, _ROOT, ())
    if schema.get("$schema", DIALECT) != DIALECT:
        yield ("$schema",), f"Only {DIALECT} is understood."
    if schema.get("type") != "object":
        yield ("type",), 'Parameters are an object: say "type": "object".'
    if schema.get("additionalProperties", False) is not False:
        yield ("additionalProperties",), "Every parameter is declared; leave this out."
    parameters = schema.get("properties", {})
    if len(parameters) > MOST_PARAMETERS:
        yield ("properties",), f"A template has at most {MOST_PARAMETERS} parameters."
    for name, parameter in parameters.items():
        if not PARAMETER_NAME.match(name):
            yield (
                ("properties", name[:80]),
                "A parameter's name has letters, digits and _, up to 64, and does not begin with a digit.",
            )
        yield from _parameter(schema, parameter, ("properties", name[:80]))
    for name, definition in schema.get("$defs", {}).items():
        yield from _parameter(schema, definition, ("$defs", name[:80]))
    order = schema.get(ORDER, [])
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        yield (ORDER,), "A list of names of parameters."
        order = []
    for index, name in enumerate(order):
        if name not in parameters or name in order[:index]:
            yield (ORDER, str(index)), f"Each parameter may be there once; {name[:80]!r} is none, or there already."
    for index, name in enumerate(schema.get("required", ())):
        if name not in parameters:
            yield ("required", str(index)), f"There is no parameter {name[:80]!r}."


def _parameter(schema: Mapping[str, Any], given: Any, at: tuple[str, ...], *, item: bool = False) -> Iterator[_Problem]:
    if not isinstance(given, Mapping):
        yield at, "Say in an object what the parameter is."
        return
    yield from _unknown_keywords(given, _KNOWN, at)
    if "$ref" in given:
        problem = _reference(schema, given)
        if problem is not None:
            yield (*at, "$ref"), problem
            return
    parameter = resolved(schema, given)
    type_ = parameter.get("type")
    allowed = _SCALARS if item else _SCALARS | {"array"}
    choices = _choices(parameter)
    if type_ is None and choices:
        type_ = _type_of(choices[0])
    if not isinstance(type_, str) or type_ not in allowed:
        yield (*at, "type"), f"Say one of {', '.join(sorted(allowed))}."
        return
    for keyword in sorted(parameter.keys() & (_KNOWN - _ANYWHERE - _OF_TYPE[type_])):
        yield (*at, keyword), f"It says nothing of a parameter of type {type_}; leave it out."
    yield from _choice_problems(given, at)
    if (pattern := given.get("pattern")) is not None and (reason := against_pattern(pattern)):
        yield (*at, "pattern"), reason
    if (format_ := given.get("format")) is not None and format_ not in FORMATS:
        yield (*at, "format"), f"Formats that are checked: {', '.join(sorted(FORMATS))}."
    if type_ == "array" and "$ref" not in given:
        if "items" not in given:
            yield (*at, "items"), "Say what an array consists of."
        else:
            yield from _parameter(schema, given["items"], (*at, "items"), item=True)
    if parameter.get(SECRET) is not None and (parameter[SECRET] is not True or type_ != "string" or item):
        yield (*at, SECRET), "A secret is a parameter of type string with this set to true."
    if parameter.get(MULTILINE) is not None and (not isinstance(parameter[MULTILINE], bool) or type_ != "string"):
        yield (*at, MULTILINE), "True or false, of a parameter of type string."


def _choice_problems(given: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[_Problem]:
    enum = given.get("enum")
    if enum is not None and not 1 <= len(enum) <= MOST_CHOICES:
        yield (*at, "enum"), f"There are 1 to {MOST_CHOICES} choices."
    for index, value in enumerate(enum or ()):
        if _type_of(value) is None:
            yield (*at, "enum", str(index)), "A choice is a text, a number or a boolean."
    if "const" in given and _type_of(given["const"]) is None:
        yield (*at, "const"), "It is a text, a number or a boolean."
    options = given.get("oneOf")
    if options is not None and len(options) > MOST_CHOICES:
        yield (*at, "oneOf"), f"There are at most {MOST_CHOICES} choices."
    seen: set[tuple[str, Any]] = set()
    for index, option in enumerate(options or ()):
        known = isinstance(option, Mapping) and option.keys() <= {"const", "title", "description", "deprecated"}
        value = option.get("const") if known else None
        if (type_ := _type_of(value)) is None:
            yield (*at, "oneOf", str(index)), 'A choice says {"const": value, "title": text}.'
        elif (type_, value) in seen:
            yield (*at, "oneOf", str(index)), "This choice is there already."
        else:
            seen.add((type_, value))


def _reference(schema: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """What is wrong with the reference of a parameter."""
    seen: list[str] = []
    while (reference := given.get("$ref")) is not None:
        if not isinstance(reference, str) or not _DEFINITION.match(reference):
            return "References go to #/$defs/NAME of this schema; nothing is fetched from elsewhere."
        if reference in seen:
            return f"It goes in a circle: {' → '.join([*seen, reference])}"
        seen.append(reference)
        found = _definition(schema, reference)
        if not isinstance(found, Mapping):
            return f"There is no {reference}."
        # A circle by way of an array's items is one, too.
        items = found.get("items")
        given = found if "$ref" in found else items if isinstance(items, Mapping) else found
    return None


def _definition(schema: Mapping[str, Any], reference: str) -> Any:
    match = _DEFINITION.match(reference)
    return schema.get("$defs", {}).get(match[1]) if match else None


def _unknown_keywords(given: Mapping[str, Any], known: set[str], at: tuple[str, ...]) -> Iterator[_Problem]:
    for keyword in given:
        if keyword not in known:
            yield (*at, keyword[:80]), "This keyword is not understood here; leave it out."


def _against_defaults(schema: Mapping[str, Any]) -> Iterator[_Problem]:
    """Defaults and choices have to fit themselves."""
    validator = validator_of(orjson.dumps(_closed(schema)))
    for name, given in schema.get("properties", {}).items():
        parameter = resolved(schema, given)
        if "default" in parameter:
            for place, said in [
                *_problems(validator.evolve(schema=given), parameter["default"]),
                *_against_secret(parameter, parameter["default"], ()),
            ]:
                yield ("properties", name, "default", *place), said
        rest = {key: value for key, value in parameter.items() if key not in ("enum", "oneOf", "const")}
        choices = _choices(parameter)
        if choices and not any(_fits(validator, rest, choice) for choice in choices):
            yield ("properties", name), "None of its choices is a value that fits."


def _fits(validator: Validator, schema: dict[str, Any], value: Any) -> bool:
    return next(iter(validator.evolve(schema=schema).iter_errors(value)), None) is None


def _choices(parameter: Mapping[str, Any]) -> list[Any]:
    if "const" in parameter:
        return [parameter["const"]]
    if isinstance(enum := parameter.get("enum"), list):
        return enum
    return [each.get("const") for each in parameter.get("oneOf", ()) if isinstance(each, Mapping)]


def _type_of(value: Any) -> str | None:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
    return None


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            part
            for each in level
            if isinstance(each, Mapping | list)
            for part in (each.values() if isinstance(each, Mapping) else each)
        ]
    return deepest


# -- values


def _problems(validator: Validator, values: Any) -> list[_Problem]:
    return [
        (_place(error), _said(error))
        for error in islice(validator.iter_errors(values), _MOST_PROBLEMS)
        if error.validator != "additionalProperties"
    ]


def _place(error: jsonschema.ValidationError) -> tuple[str, ...]:
    place = tuple(map(str, error.absolute_path))
    if error.validator == "required" and (missing := _missing(error)) is not None:
        return (*place, missing)
    return place


def _said(error: jsonschema.ValidationError) -> str:
    """What is wrong, without repeating the value: it may be long, or not be meant to be seen."""
    wanted: Any = error.validator_value
    value: Any = error.instance
    match error.validator:
        case "required":
            return "It is required."
        case "type":
            return f"It must be {'an' if wanted[0] in 'aio' else 'a'} {wanted}."
        case "enum":
            return f"It must be one of {_short(orjson.dumps(wanted).decode())}."
        case "const":
            return f"It must be {_short(orjson.dumps(wanted).decode())}."
        case "oneOf":
            return f"It must be one of {_short(orjson.dumps([each.get('const') for each in wanted]).decode())}."
        case "pattern":
            return f"It must fit the pattern {_short(wanted)}"
        case "format":
            return f"It must be a {wanted}."
        case "minLength" | "maxLength":
            return f"It has {len(value)} characters; {_bound(error.validator)} {wanted}."
        case "minItems" | "maxItems":
            return f"It has {len(value)} items; {_bound(error.validator)} {wanted}."
        case "uniqueItems":
            return "Each item may be there only once."
        case "minimum":
            return f"It must be at least {wanted}."
        case "maximum":
            return f"It must be at most {wanted}."
        case "exclusiveMinimum":
            return f"It must be more than {wanted}."
        case "exclusiveMaximum":
            return f"It must be less than {wanted}."
        case "multipleOf":
            return f"It must be a multiple of {wanted}."
    return _short(error.message)


def _bound(keyword: str) -> str:
    return "at least" if keyword.startswith("min") else "at most"


def _missing(error: jsonschema.ValidationError) -> str | None:
    found = re.match(r"'(.*)' is a required property", error.message)
    return found[1] if found else None


def _against_secret(parameter: Mapping[str, Any], value: str, place: tuple[str, ...]) -> Iterator[_Problem]:
    if parameter.get(SECRET) is not True:
        return
    try:
        check_variable_name(value)
    except BadInput as error:
        yield place, f"It is the name of an environment variable. {error.message}"


def _as_declared(parameter: Mapping[str, Any], value: Any) -> Any:
    """3.0 is an integer in JSON Schema, and then it is 3."""
    if parameter.get("type") == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list) and isinstance(items := parameter.get("items"), Mapping):
        return [_as_declared(items, each) for each in value]
    return value


def _with_items(schema: Mapping[str, Any], parameter: dict[str, Any]) -> dict[str, Any]:
    items = parameter.get("items")
    return parameter | {"items": resolved(schema, items)} if isinstance(items, Mapping) else parameter


def _unknown(schema: Mapping[str, Any]) -> str:
    names = ", ".join(properties(schema))
    return f"There is no such parameter; there are {_short(names)}." if names else "This template has no parameters."


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object"} | dict(schema) | {"additionalProperties": False}


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "…"
