"""Large answers are compressed for those who ask for it, and mean the same."""

from __future__ import annotations

import gzip
import http.client
from urllib.parse import urlsplit

import orjson
import pytest

from tests.conftest import Server

SMALL, LARGE = "{ viewer { user { id } } }", "{ __schema { types { name description fields { name description } } } }"


def ask(server: Server, query: str, encoding: str | None) -> tuple[bytes, dict[str, str]]:
    """The body as it was sent, and the headers."""
    connection = http.client.HTTPConnection(urlsplit(server.base).netloc, timeout=20)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    if encoding is not None:
        headers["Accept-Encoding"] = encoding
    connection.request("POST", "/graphql", orjson.dumps({"query": query}), headers)
    response = connection.getresponse()
    found = response.read(), {name.lower(): value for name, value in response.getheaders()}
    connection.close()
    assert response.status == 200
    assert int(found[1]["content-length"]) == len(found[0])
    return found


def test_a_large_answer_is_compressed_for_who_takes_gzip(server: Server) -> None:
    plain, headers = ask(server, LARGE, None)
    assert "content-encoding" not in headers
    for encoding in ("gzip", "br;q=1.0, GZIP;q=0.8, *;q=0.1", "deflate, gzip"):
        packed, headers = ask(server, LARGE, encoding)
        assert headers["content-encoding"] == "gzip"
        assert "accept-encoding" in headers["vary"]
        assert len(packed) < len(plain) / 3
        assert orjson.loads(gzip.decompress(packed)) == orjson.loads(plain)


@pytest.mark.parametrize("encoding", [None, "", "br", "identity", "gzip;q=0", "gzip; q=0.0"])
def test_others_get_it_as_it_is(server: Server, encoding: str | None) -> None:
    body, headers = ask(server, LARGE, encoding)
    assert "content-encoding" not in headers
    assert orjson.loads(body)["data"]["__schema"]


def test_a_small_answer_is_not_worth_it(server: Server) -> None:
    body, headers = ask(server, SMALL, "gzip")
    assert "content-encoding" not in headers
    assert orjson.loads(body)["data"]["viewer"]
