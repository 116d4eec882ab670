"""The format of bundles: versions of one template in a zip archive, with a manifest that its publisher has signed.

    manifest.json               who publishes which versions, with the digest of each file; canonical JSON (RFC 8785)
    manifest.sig                Ed25519 (RFC 8032) over CONTEXT and the manifest, in base64
    templates/NAME/v3.yaml      version 3, as services.templates.files writes it

There is exactly one archive for what is in it: the files in this order, stored without compression, without times,
comments and attributes. A reader makes the archive anew of what it has read, and refuses one that differs in any byte;
so there is nothing in a bundle that no signature covers, and nothing that grows when it is unpacked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from core.errors import BadInput, TooLarge
from services.templates.files import ReadTemplate, read_file

FORMAT: Literal["quarterdeck.template-bundle/v1"] = "quarterdeck.template-bundle/v1"
CONTEXT = FORMAT.encode() + b"\n"
"""What is signed before the manifest, so that the signature is good for nothing else."""

LARGEST_BUNDLE = 1_400_000
"""Bytes: what fits into one request in base64."""
MOST_VERSIONS = 20

_MANIFEST, _SIGNATURE = "manifest.json", "manifest.sig"
_KEY = "ed25519:"
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_SHA256 = r"^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True)


class BundledVersion(_Strict):
    """A version in a bundle."""

    number: int = Field(ge=1, lt=2**31)
    digest: str = Field(pattern=_SHA256)
    """Of the specification."""
    message: str = Field(max_length=2000)
    path: str = Field(max_length=200)
    sha256: str = Field(pattern=_SHA256)
    """Of the file."""


class BundlePublisher(_Strict):
    """Who has signed."""

    name: str = Field(min_length=1, max_length=200)
    public_key: str = Field(max_length=80)
    fingerprint: str = Field(pattern=_SHA256)


class Manifest(_Strict):
    """What a bundle says of itself."""

    format: Literal["quarterdeck.template-bundle/v1"]
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$")
    publisher: BundlePublisher
    created_at: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")
    versions: list[BundledVersion] = Field(min_length=1, max_length=MOST_VERSIONS)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that is whole, and signed by the key that its manifest names. Whether that key is trusted is not asked
    here."""

    manifest: Manifest
    templates: Mapping[int, ReadTemplate]
    """By the versions' numbers."""
    sha256: str


def pack(
    name: str,
    versions: Sequence[tuple[int, str, str, str]],
    *,
    publisher: str,
    key: Ed25519PrivateKey,
    created_at: datetime,
) -> bytes:
    """A bundle of versions, each (number, digest, message, text of the file). Raises TooLarge."""
    public = public_text(key.public_key())
    files = {f"templates/{name}/v{number}.yaml": text.encode() for number, _, _, text in versions}
    manifest = Manifest(
        format=FORMAT,
        name=name,
        publisher=BundlePublisher(name=publisher, public_key=public, fingerprint=fingerprint(public)),
        created_at=created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        versions=[
            BundledVersion(
                number=number, digest=digest, message=message, path=path, sha256=hashlib.sha256(files[path]).hexdigest()
            )
            for (number, digest, message, _), path in zip(versions, files, strict=True)
        ],
    )
    said = rfc8785.dumps(manifest.model_dump(mode="json", by_alias=True))
    content = _archive({_MANIFEST: said, _SIGNATURE: base64.b64encode(key.sign(CONTEXT + said)), **files})
    if len(content) > LARGEST_BUNDLE:
        raise TooLarge(
            f"The bundle would have {len(content):,} bytes; {LARGEST_BUNDLE:,} is the most. Choose fewer versions, or "
            "put large files into a repository or an archive.",
            field="versions",
        )
    return content


def unpack(content: bytes, *, field: str) -> Bundle:
    """What is in a bundle, after all was checked but whether its publisher is trusted. Raises BadInput, TooLarge."""
    if len(content) > LARGEST_BUNDLE:
        raise TooLarge(f"A bundle has at most {LARGEST_BUNDLE:,} bytes.", field=field)
    files = _files(content, field)
    said, signature = files.pop(_MANIFEST, None), files.pop(_SIGNATURE, None)
    if said is None or signature is None:
        raise _bad("It has no manifest or no signature", field)
    manifest = _manifest(said, field)
    try:
        key = public_key(manifest.publisher.public_key)
        key.verify(base64.b64decode(signature, validate=True), CONTEXT + said)
    except (InvalidSignature, binascii.Error, BadInput):
        raise _bad("The signature is not that of the manifest's publisher", field) from None
    if fingerprint(manifest.publisher.public_key) != manifest.publisher.fingerprint:
        raise _bad("The fingerprint is not that of the publisher's key", field)
    if [version.path for version in manifest.versions] != list(files):
        raise _bad("The files are not those of the manifest", field)
    if _archive({_MANIFEST: said, _SIGNATURE: signature, **files}) != content:
        raise _bad("There is something in it that its publisher has not put there", field)
    templates = {version.number: _template(manifest.name, version, files, field) for version in manifest.versions}
    if len(templates) != len(manifest.versions):
        raise _bad("A version is in it twice", field)
    return Bundle(manifest, templates, hashlib.sha256(content).hexdigest())


def public_text(key: Ed25519PublicKey) -> str:
    """A public key as it is shown: `ed25519:` and its 32 bytes in base64."""
    return _KEY + base64.b64encode(key.public_bytes_raw()).decode()


def public_key(text: str, *, field: str = "publicKey") -> Ed25519PublicKey:
    """The key of such a text. Raises BadInput."""
    try:
        if not text.startswith(_KEY):
            raise ValueError(text)
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix(_KEY), validate=True))
    except ValueError:
        raise BadInput(
            "This is no public key: `ed25519:` and 44 characters, as its owner reads it from templateSigningKey.",
            field=field,
        ) from None
    if public_text(key) != text:
        raise BadInput("This public key is not spelled in the one way that there is.", field=field)
    return key


def fingerprint(public: str) -> str:
    """SHA-256 of a public key's 32 bytes, hexadecimal: short enough to be read out."""
    return hashlib.sha256(base64.b64decode(public.removeprefix(_KEY))).hexdigest()


def _manifest(said: bytes, field: str) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(said)
        # One spelling alone, so that two readers never see two things in it.
        if rfc8785.dumps(manifest.model_dump(mode="json", by_alias=True)) != said:
            raise ValueError("not canonical")
    except (ValidationError, ValueError, RecursionError):
        raise _bad("The manifest is not one of " + FORMAT, field) from None
    return manifest


def _template(name: str, version: BundledVersion, files: Mapping[str, bytes], field: str) -> ReadTemplate:
    content = files[version.path]
    if version.path != f"templates/{name}/v{version.number}.yaml":
        raise _bad(f"{version.path} is not where version {version.number} belongs", field)
    if hashlib.sha256(content).hexdigest() != version.sha256:
        raise _bad(f"{version.path} is not the file that was signed", field)
    try:
        [template] = read_file(content.decode())
    except (UnicodeDecodeError, ValueError):
        raise _bad(f"{version.path} is not one template", field) from None
    except (BadInput, TooLarge) as error:
        raise BadInput(
            f"{version.path} of the bundle is not taken here: {error.message}", field=field, **error.details
        ) from None
    if template.metadata.name != name or template.spec.digest() != version.digest:
        raise _bad(f"{version.path} is not the version that the manifest says", field)
    return template


# -- archives


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _files(content: bytes, field: str) -> dict[str, bytes]:
    """The files of an archive. Names are only compared, and nothing is ever written anywhere by them."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
            if len(entries) > MOST_VERSIONS + 2 or len(names) != len(entries):
                raise _bad("It has too many files, or two of one name", field)
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise _bad("Its files are compressed; those of bundles are not", field)
            if sum(entry.file_size for entry in entries) > len(content):
                raise _bad("Its files say that they are larger than the archive", field)
            return {entry.filename: archive.read(entry) for entry in entries}
    except _BROKEN:
        raise _bad("It is no zip archive, or it is damaged", field) from None


# All that zipfile raises for archives that were not made by honest programs.
_BROKEN: Any = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
    OverflowError,
    EOFError,
    IndexError,
    UnicodeError,
)


def _bad(why: str, field: str) -> BadInput:
    return BadInput(f"{why}: nothing was imported. Ask its publisher for the bundle again.", field=field)
