from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from core.permissions import Role
from services.audit_redaction import CUT, MAX_RECORD_BYTES, REDACTED, is_secret_key, plain_text, redact


def redacted(value: dict[str, Any]) -> dict[str, Any]:
    (found,) = redact(value)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "newPassword",
        "password_hash",
        "apiKey",
        "X-Api-Key",
        "APIKey",
        "Authorization",
        "Cookie",
        "client_secret",
        "GITHUB_TOKEN",
        "accessToken",
        "AWS_SECRET_ACCESS_KEY",
        "privateKey",
        "environment_sealed",
        "proxy-authorization",
        "secrets",
    ],
)
def test_keys_that_hold_secrets(key: str) -> None:
    assert is_secret_key(key)
    assert redacted({"deep": [{key: "hunter2"}]}) == {"deep": [{key: REDACTED}]}


@pytest.mark.parametrize(
    "key",
    [
        "title",
        "tokens",
        "inputTokens",
        "maxTokens",
        "tokenId",
        "token_name",
        "secret_names",
        "token_hint",
        "header_names",
        "key",
        "keyboard",
        "author",
        "passenger",
        "secretary",
        "token_expires_at",
    ],
)
def test_keys_that_do_not(key: str) -> None:
    assert redacted({key: "value"}) == {key: "value"}


def test_values_that_are_secret_whatever_their_key() -> None:
    assert redacted(
        {
            "shown": SecretStr("hunter2"),
            "sealed_or_hashed": b"\x01\x02",
            "headers": {"X-Custom": "hunter2", "X-Count": 3, "X-None": None},
            "environment": {"PLAIN": {"nested": ["hunter2"]}},
            "password": {"old": "hunter2", "new": "hunter3"},
            "environment_names": ["PLAIN"],
        }
    ) == {
        "shown": REDACTED,
        "sealed_or_hashed": REDACTED,
        "headers": {"X-Custom": REDACTED, "X-Count": REDACTED, "X-None": None},
        "environment": {"PLAIN": {"nested": REDACTED}},
        "password": {"old": REDACTED, "new": REDACTED},
        "environment_names": ["PLAIN"],
    }


def test_that_a_secret_is_set_may_be_said() -> None:
    assert redacted({"password": True, "token": None}) == {"password": True, "token": None}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("curl -H 'Authorization: Bearer abcdefgh12345678' x", "curl -H 'Authorization: Bearer [redacted]' x"),
        ("postgresql://app:hunter2@db:5432/x", "postgresql://[redacted]@db:5432/x"),
        (f"qdt_{'a' * 43} is mine", "[redacted] is mine"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", "a [redacted] b"),
        ("a -----BEGIN PRIVATE KEY-----\nMIIE", "a [redacted]"),
        ("https://example.com/a:b@c", "https://example.com/a:b@c"),
    ],
)
def test_credentials_inside_texts(text: str, kept: str) -> None:
    assert redacted({"command": text}) == {"command": kept}


def test_values_become_json() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "hunter2"

    value: dict[Any, Any] = {
        "id": UUID(int=7),
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "role": Role.ADMIN,
        "big": 2**60,
        "nan": float("nan"),
        "whole": 60.0,
        "odd": Odd(),
        "nul": "a\0b",
        3: (1, 2),
    }
    assert redacted(value) == {
        "id": "00000000-0000-0000-0000-000000000007",
        "at": "2026-01-02T00:00:00+00:00",
        "role": "ADMIN",
        "big": "1152921504606846976",
        "nan": "nan",
        "whole": 60,
        "odd": "[Odd]",
        "nul": "a\ufffdb",
        "3": [1, 2],
    }


def test_what_is_cut_says_so() -> None:
    before, after = redact({"text": "é" * 100_000}, {"list": list(range(100_000)), "last": 1})
    assert before is not None
    assert after is not None
    assert before["text"].endswith(CUT)
    assert after["list"][0] == 0
    assert after["list"][-1] == f"{CUT} {100_000 - (len(after['list']) - 1)} more"
    assert after[CUT] == "1 more"
    assert len(orjson.dumps([before, after])) <= MAX_RECORD_BYTES


def test_deep_nesting_ends() -> None:
    value: dict[str, Any] = {}
    for _ in range(500):
        value = {"a": value}
    assert CUT in orjson.dumps(redacted(value)).decode()


def test_a_credential_on_the_border_of_what_is_kept_is_not_shown_in_part() -> None:
    assert "qdt_" not in (plain_text("x" * 90 + " qdt_" + "a" * 43, 100) or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=50,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), JSON))
def test_whatever_comes_fits_and_has_one_canonical_form(value: dict[str, Any]) -> None:
    found = redacted(value)
    data = orjson.dumps(found)
    assert len(data) <= MAX_RECORD_BYTES
    assert rfc8785.dumps(orjson.loads(data)) == rfc8785.dumps(found)
