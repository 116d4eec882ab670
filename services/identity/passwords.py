"""Passwords: argon2id off the event loop, and which ones are refused.

Parameters: OWASP Password Storage Cheat Sheet (argon2id, m = 19 MiB, t = 2, p = 1). Rules: NIST SP 800-63B
section 3.1.1 (length counts, no composition rules, common and obvious ones refused, Unicode by NFKC).
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from core.errors import BadInput, RateLimited

T = TypeVar("T")

SHORTEST = 12
LONGEST = 256

# 19 MiB and about 30 ms of a core each: more threads would only make everything else wait.
_THREADS = 2
_MOST_WAITING = 64

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)
_waiting = 0

_RUNS = (
    "01234567890123456789",
    "09876543210987654321",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "1q2w3e4r5t6y7u8i9o0p",
)
_LEET = str.maketrans("@4310$5!7", "aaeiossit")


def check_password(password: str, *, about: tuple[str | None, ...] = (), field: str = "password") -> None:
    """Raises BadInput where a new password is too short, too long, common, or made of what `about` says.

    `about` are the account's name and email address. Lengths count code points.
    """
    length = len(_normal(password))
    if length < SHORTEST:
        raise BadInput(f"A password has at least {SHORTEST} characters; this one has {length}.", field=field)
    if length > LONGEST:
        raise BadInput(f"A password has at most {LONGEST} characters; this one has {length}.", field=field)
    if _is_obvious(_normal(password).casefold(), [word for text in about if text for word in _words(text)]):
        raise BadInput(
            "This password is among the first that are guessed. Take another, such as four or five unrelated words.",
            field=field,
        )


async def hash_password(password: str) -> str:
    """The hash to store, in PHC format."""
    return await _off_the_loop(lambda: _hasher.hash(_bytes(password)))


async def verify_password(stored: str | None, password: str) -> bool:
    """Whether the password is the stored one. Costs the same where there is none, so that time tells nothing."""
    given = _bytes(password[: LONGEST + 1])
    return await _off_the_loop(lambda: _matches(stored or _hash_of_nobody(), given) and stored is not None)


def needs_rehash(stored: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)


def _matches(stored: str, password: bytes) -> bool:
    try:
        return _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _hash_of_nobody() -> str:
    return _hasher.hash("nobody has this password")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")


async def _off_the_loop(work: Callable[[], T]) -> T:
    global _waiting
    if _waiting >= _MOST_WAITING:
        raise RateLimited("Too many sign-ins at once. Try again in a few seconds.", retryAfterSeconds=3)
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_pool(), work)
    finally:
        _waiting -= 1


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


def _bytes(password: str) -> bytes:
    # Half a surrogate pair is no UTF-8, but may come out of JSON.
    return _normal(password).encode("utf-8", "surrogatepass")


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.casefold()) if len(word) >= 3]


def _is_obvious(password: str, own_words: list[str]) -> bool:
    plain = _without_signs(password)
    if len(set(password)) < 5 or (plain and any(plain in run for run in _RUNS)):
        return True
    words = _common_words().union(own_words)
    core = _without_ends(password)
    guesses = (core, core.translate(_LEET), _without_ends(password.translate(_LEET)))
    return any(_is_made_of(_without_signs(guess), words) for guess in guesses)


@cache
def _common_words() -> frozenset[str]:
    """Words that common passwords are made of; the list says only letters, for digits and signs are taken off first."""
    return frozenset(Path(__file__).with_name("common_passwords.txt").read_text("utf-8").split())


def _without_ends(text: str) -> str:
    """Without the digits and signs around it that are meant to make a word a password."""
    return re.sub(r"^[\W\d_]+|[\W\d_]+$", "", text)


def _without_signs(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


def _is_made_of(text: str, words: frozenset[str]) -> bool:
    """Whether a text is words of the list and nothing else, one after another."""
    reached = {0}
    for end in range(1, len(text) + 1):
        if any(
            end - len(word) in reached and text.startswith(word, end - len(word)) for word in words if len(word) <= end
        ):
            reached.add(end)
    return bool(text) and len(text) in reached
