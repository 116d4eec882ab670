"""The validator of parameters: nothing is fetched, patterns take linear time, and formats are really checked."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import jsonschema
import orjson
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema
from referencing import Registry
from referencing.exceptions import NoSuchResource
from referencing.jsonschema import Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MOST_ITEMS = 1000
LONGEST_PATTERN = 1000


@lru_cache(maxsize=256)
def validator_of(schema: bytes) -> Validator:
    """The validator of a schema in JSON."""
    found: Validator = _Validator(orjson.loads(schema), registry=_REGISTRY, format_checker=_CHECKER)
    return found


def against_metaschema(schema: Any) -> Iterator[jsonschema.ValidationError]:
    """What makes a schema none of JSON Schema 2020-12."""
    return _METASCHEMA.iter_errors(schema)


def against_pattern(pattern: str) -> str | None:
    """Why a pattern cannot be used; None where it can."""
    if len(pattern) > LONGEST_PATTERN:
        return f"A pattern has at most {LONGEST_PATTERN} characters."
    try:
        _pattern(pattern)
    except SchemaError as error:
        reason = str(error).strip().splitlines()[-1].strip()[:300]
        return f"Not a pattern that is understood (no look-around, no back references): {reason}"
    return None


def _retrieve(uri: str) -> Any:
    raise NoSuchResource(uri)


_REGISTRY: Registry[Schema] = Registry(retrieve=_retrieve)  # type: ignore[call-arg]
_METASCHEMA = Draft202012Validator(Draft202012Validator.META_SCHEMA)


@lru_cache(maxsize=1024)
def _pattern(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _fits_pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str):
        try:
            _pattern(pattern).validate_python(instance)
        except ValidationError:
            yield jsonschema.ValidationError("It does not fit the pattern.")


def _fits_items(validator: Any, items: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, list) and len(instance) > MOST_ITEMS:
        yield jsonschema.ValidationError(f"It has at most {MOST_ITEMS} items.")
        return
    yield from _items(validator, items, instance, schema)


def _fits_unique(_: Any, unique: Any, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    # The library compares each with each, which takes long for many.
    if isinstance(instance, list) and unique is True:
        seen = {(isinstance(each, bool), float(each) if isinstance(each, int | float) else each) for each in instance}
        if len(seen) < len(instance):
            yield jsonschema.ValidationError("Each item may be there only once.")


def _fits_multiple(_: Any, step: Any, instance: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, bool) or not isinstance(instance, int | float):
        return
    if isinstance(step, int) and isinstance(instance, int):
        fits = instance % step == 0
    else:
        # 0.3 is a multiple of 0.1 to everybody but binary fractions.
        quotient = instance / step
        fits = math.isfinite(quotient) and math.isclose(quotient, round(quotient), rel_tol=1e-12, abs_tol=1e-9)
    if not fits:
        yield jsonschema.ValidationError("It is no multiple.")


_items = Draft202012Validator.VALIDATORS["items"]
_Validator = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"pattern": _fits_pattern, "items": _fits_items, "uniqueItems": _fits_unique, "multipleOf": _fits_multiple},
)


def _date(value: str) -> bool:
    return len(value) == 10 and date.fromisoformat(value) is not None


def _time(value: str) -> bool:
    return time.fromisoformat(value) is not None


def _date_time(value: str) -> bool:
    return len(value) > 10 and value[10] in "Tt" and datetime.fromisoformat(value).tzinfo is not None


def _email(value: str) -> bool:
    return re.fullmatch(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)*", value) is not None


def _uuid(value: str) -> bool:
    return str(UUID(value)) == value.lower()


def _ipv4(value: str) -> bool:
    return ipaddress.IPv4Address(value) is not None


def _ipv6(value: str) -> bool:
    return ipaddress.IPv6Address(value) is not None


def _uri(value: str) -> bool:
    parts = urlsplit(value)
    return bool(parts.scheme and (parts.netloc or parts.path)) and not re.search(r"[\s<>\"{}|\\^`]", value)


FORMATS: dict[str, Callable[[str], bool]] = {
    "date": _date,
    "date-time": _date_time,
    "email": _email,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "time": _time,
    "uri": _uri,
    "uuid": _uuid,
}


def _of_text(check: Callable[[str], bool]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or check(value)


_CHECKER = FormatChecker(())
for _name, _check in FORMATS.items():
    _CHECKER.checks(_name, raises=ValueError)(_of_text(_check))
