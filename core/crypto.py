"""Sealing of stored secrets, tokens and their hashes, and signed links."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from core.errors import NotFound, Unavailable

_NONCE = 12
SHORTEST_SECRET = 32
"""Bytes."""


class Vault:
    """Keys derived from one secret of the installation: one to seal, one to sign, one to witness the audit log."""

    def __init__(self, secret: bytes) -> None:
        self._seal = AESGCM(_derive(secret, b"seal"))
        self._sign = OctKey.import_key(_derive(secret, b"sign"))
        self.audit_key = _derive(secret, b"audit")
        self.fingerprint = _derive(secret, b"fingerprint")
        """Tells whether two processes have the same secret, and nothing about it."""

    def seal(self, value: Any, *, purpose: str) -> bytes:
        """Encrypt a JSON value (AES-256-GCM). `purpose` must be given again to open it."""
        nonce = os.urandom(_NONCE)
        return nonce + self._seal.encrypt(nonce, orjson.dumps(value), purpose.encode())

    def open(self, sealed: bytes, *, purpose: str) -> Any:
        """The value that was sealed; Unavailable where the installation's key is another one."""
        try:
            return orjson.loads(self._seal.decrypt(sealed[:_NONCE], sealed[_NONCE:], purpose.encode()))
        except InvalidTag:
            raise Unavailable(
                "A stored secret cannot be opened: QUARTERDECK_SECRET_KEY is not the key it was sealed with. "
                "Set the former key, or enter the secret again."
            ) from None

    def sign(self, claims: dict[str, Any], *, seconds: int, purpose: str) -> str:
        """A signed text (JWT, HS256) that says `claims` for so many seconds."""
        body = claims | {"exp": int(time.time()) + seconds, "aud": purpose}
        return jwt.encode({"alg": "HS256"}, body, self._sign)

    def verify(self, text: str, *, purpose: str) -> dict[str, Any]:
        """The claims of a signed text; NotFound where it is forged, expired, or for something else."""
        try:
            token = jwt.decode(text, self._sign, algorithms=["HS256"])
            jwt.JWTClaimsRegistry(exp={"essential": True}, aud={"essential": True, "value": purpose}).validate(
                token.claims
            )
        except (JoseError, ValueError):
            raise NotFound("This link is not valid, or no longer. Ask for a new one.") from None
        return token.claims


def installation_secret(given: str | None, folder: Path) -> bytes:
    """The secret from the settings, or one that is made once and kept in the data folder (mode 0600).

    Raises Unavailable where it is too short to be one.
    """
    if given:
        if len(given) < SHORTEST_SECRET:
            raise Unavailable(
                f"QUARTERDECK_SECRET_KEY is too short: give it at least {SHORTEST_SECRET} random characters."
            )
        return given.encode()
    path = folder / "secret.key"
    if not path.exists():
        _make_secret(path)
    secret = path.read_bytes()
    if len(secret) < SHORTEST_SECRET:
        raise Unavailable(
            f"The key in {path} is damaged: it has {len(secret)} bytes. Restore the file from a copy, or set "
            "QUARTERDECK_SECRET_KEY; without a copy, remove it to have a new one, and enter stored secrets again."
        )
    return secret


def _make_secret(path: Path) -> None:
    """Whole or not at all: a crash leaves no half of a key, and of several processes one is first."""
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_urlsafe(48).encode())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)


def new_secret(prefix: str) -> str:
    """A random secret to show once: `qdt_` and 43 characters (256 bits)."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> bytes:
    """What is stored of a random secret. Plain SHA-256: 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"quarterdeck/" + purpose).derive(secret)
