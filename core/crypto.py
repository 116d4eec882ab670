"""Sealing of stored secrets, tokens and their hashes, and signed links."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
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


class Vault:
    """Keys derived from one secret of the installation: one to seal, one to sign, one to witness the audit log."""

    def __init__(self, secret: bytes) -> None:
        self._seal = AESGCM(_derive(secret, b"seal"))
        self._sign = OctKey.import_key(_derive(secret, b"sign"))
        self.audit_key = _derive(secret, b"audit")

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
    """The secret from the settings, or one that is made once and kept in the data folder (mode 0600)."""
    if given:
        if len(given) < 32:
            raise Unavailable("QUARTERDECK_SECRET_KEY is too short: give it at least 32 random characters.")
        return given.encode()
    path = folder / "secret.key"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_urlsafe(48).encode())
    return path.read_bytes()


def new_secret(prefix: str) -> str:
    """A random secret to show once: `qdt_` and 43 characters (256 bits)."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> bytes:
    """What is stored of a random secret. Plain SHA-256: 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"quarterdeck/" + purpose).derive(secret)
