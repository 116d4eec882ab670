"""Bundles of templates: one archive for what is in it, and nothing in it that was not signed."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.errors import BadInput, QuarterdeckError, TooLarge
from services.templates.bundle_format import (
    CONTEXT,
    LARGEST_BUNDLE,
    fingerprint,
    pack,
    public_key,
    public_text,
    unpack,
)
from services.templates.files import write_file
from services.templates.spec import check_spec

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
AT = datetime(2026, 11, 26, 12, tzinfo=UTC)
ROW: Any = {"name": "review", "title": "Review", "summary": "", "icon": None, "category": "development", "labels": {}}


def versions(*prompts: str) -> list[tuple[int, str, str, str]]:
    found = []
    for number, prompt in enumerate(prompts, 1):
        spec = check_spec({"systemPrompt": prompt})
        found.append((number, spec.digest(), "why", write_file(ROW, spec.stored(), spec.digest()).text))
    return found


def packed(*prompts: str) -> bytes:
    return pack("review", versions(*prompts), publisher="Acme", key=KEY, created_at=AT)


def refused(content: bytes) -> str:
    with pytest.raises((BadInput, TooLarge)) as caught:
        unpack(content, field="content")
    assert caught.value.field == "content"
    return caught.value.message


def test_a_bundle_is_the_same_bytes_each_time_and_has_what_was_put_in() -> None:
    content = packed("one", "two\nlines\n")
    assert content == packed("one", "two\nlines\n")
    bundle = unpack(content, field="content")
    assert [version.number for version in bundle.manifest.versions] == [1, 2]
    assert bundle.templates[2].spec.system_prompt == "two\nlines\n"
    assert bundle.manifest.publisher.fingerprint == fingerprint(public_text(KEY.public_key()))
    assert bundle.manifest.created_at == "2026-11-26T12:00:00Z"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == [
            "manifest.json",
            "manifest.sig",
            "templates/review/v1.yaml",
            "templates/review/v2.yaml",
        ]


def test_a_change_of_any_byte_is_noticed() -> None:
    content = packed("one")
    for index in range(len(content)):
        for bit in (1, 0x80):
            changed = bytearray(content)
            changed[index] ^= bit
            with pytest.raises(QuarterdeckError):
                unpack(bytes(changed), field="content")


def test_a_bundle_that_is_cut_or_longer_is_noticed() -> None:
    content = packed("one")
    for size in (*range(0, len(content), 7), len(content) - 1):
        with pytest.raises(QuarterdeckError):
            unpack(content[:size], field="content")
    for more in (b"\0", b"x" * 100, content):
        with pytest.raises(QuarterdeckError):
            unpack(content + more, field="content")
        with pytest.raises(QuarterdeckError):
            unpack(more + content, field="content")


def archive(files: list[tuple[str, bytes]], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as found:
        for name, content in files:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, compression
            found.writestr(info, content)
    return buffer.getvalue()


def contents(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as found:
        return [(name, found.read(name)) for name in found.namelist()]


def signed(change: Callable[[dict[str, Any], dict[str, bytes]], None], key: Ed25519PrivateKey = KEY) -> bytes:
    """A bundle with something wrong in it that its publisher has signed all the same."""

    files = dict(contents(packed("one")))
    manifest = orjson.loads(files.pop("manifest.json"))
    del files["manifest.sig"]
    change(manifest, files)
    said = rfc8785.dumps(manifest)
    return archive(
        [("manifest.json", said), ("manifest.sig", base64.b64encode(key.sign(CONTEXT + said))), *files.items()]
    )


def test_the_files_as_they_were_made_are_taken_by_this_test_too() -> None:
    assert signed(lambda manifest, files: None) == packed("one")


def rename(manifest: dict[str, Any], files: dict[str, bytes], path: str) -> None:
    [(_, content)] = files.items()
    files.clear()
    files[path] = content
    manifest["versions"][0]["path"] = path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m, f: m["versions"][0].update(sha256="0" * 64), "not the file that was signed"),
        (lambda m, f: m["versions"][0].update(digest="0" * 64), "not the version that the manifest says"),
        (lambda m, f: m["versions"][0].update(number=2), "not where version 2 belongs"),
        (lambda m, f: m["versions"].append(m["versions"][0]), "not those of the manifest"),
        (lambda m, f: m.update(name="other"), "not where version 1 belongs"),
        (lambda m, f: m.update(more=1), "manifest is not one"),
        (lambda m, f: m.update(format="quarterdeck.template-bundle/v2"), "manifest is not one"),
        (lambda m, f: m["publisher"].update(fingerprint="0" * 64), "fingerprint"),
        (lambda m, f: m["publisher"].update(publicKey="ed25519:AAAA"), "signature"),
        (lambda m, f: f.update({"templates/review/v9.yaml": b"x"}), "not those of the manifest"),
        (lambda m, f: rename(m, f, "../../etc/cron.d/v1.yaml"), "not where version 1 belongs"),
        (lambda m, f: rename(m, f, "/templates/review/v1.yaml"), "not where version 1 belongs"),
    ],
)
def test_what_does_not_fit_together_is_refused_even_where_it_is_signed(change: Any, said: str) -> None:
    assert said in refused(signed(change))


def test_another_signature_is_refused() -> None:
    assert "signature" in refused(signed(lambda m, f: None, Ed25519PrivateKey.generate()))


def test_an_archive_that_would_grow_is_refused_before_it_does() -> None:
    bomb = archive([("manifest.json", b"0" * 100_000_000)], compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < LARGEST_BUNDLE
    assert "compressed" in refused(bomb)
    assert "compressed" in refused(archive(contents(packed("one")), compression=zipfile.ZIP_DEFLATED))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_archives_are_refused() -> None:
    files = contents(packed("one"))
    assert "two of one name" in refused(archive([*files, files[-1]]))
    assert "too many files" in refused(archive([*files, *((f"f{n}", b"") for n in range(30))]))
    assert "zip archive" in refused(b"no archive")
    assert "zip archive" in refused(b"")
    assert "no manifest" in refused(archive(files[1:]))
    assert "no signature" in refused(archive([files[0], files[2]]))
    assert "has not put there" in refused(archive([files[1], files[0], files[2]]))
    assert "at most" in refused(b"x" * (LARGEST_BUNDLE + 1))


def test_what_is_too_large_is_not_packed() -> None:
    with pytest.raises(TooLarge) as caught:
        packed("a" * 200_000, "b" * 250_000, *("c" * 250_000 + str(n) for n in range(4)))
    assert caught.value.field == "versions"


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "rsa:" + "A" * 44, "ed25519:" + "é" * 44, "x" * 1000])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        public_key(text)


def test_a_public_key_has_one_spelling() -> None:
    text = public_text(KEY.public_key())
    assert public_text(public_key(text)) == text
    # The last character before the padding has bits that mean nothing.
    other = text[:-2] + chr(ord(text[-2]) + 1) + "="
    with pytest.raises(BadInput):
        public_key(other)
