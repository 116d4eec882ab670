"""Crockford's base 32 of uuids, by the hundred.

Python has no fast way to write a number in base 32, but a fast one to write it in base 64. So the digits of 5 bits are
moved apart to 6 bits each, those of many uuids at once in one large number: first half of the digits by 16 bits, then
each half's half by 8, and so on. Base 64 of that, with its first 32 letters exchanged, is base 32. A page of a thousand
ids takes a fifth of the time of one after the other (docs/performance.md).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from uuid import UUID

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
DIGITS = 26
"""Of a uuid; the first of them is at most 7."""

# Each uuid has a lane of 21 bytes, which base 64 writes as 28 letters, of which the last 26 are its digits.
_LANE_BYTES, _LANE_LETTERS = 21, 28
_MOST_LANES = 64
_GAP = bytes(_LANE_BYTES - 16)
_LETTERS = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef", ALPHABET.encode())

_PLAIN = re.compile("[0-7][0-9a-z]{25}", re.ASCII)
# What int() reads in base 32, and nothing for the letters that Crockford leaves out.
_TO_BASE_32 = str.maketrans(ALPHABET + "ilou", "0123456789abcdefghijklmnopqrstuv" + "////")


def encode(value: UUID) -> str:
    """The 26 digits of a uuid, lower case, most significant first."""
    return _letters(value.bytes, 1)[2:]


def encode_many(values: Sequence[UUID], prefix: str = "") -> list[str]:
    """The same of many, each behind the prefix."""
    found: list[str] = []
    for start in range(0, len(values), _MOST_LANES):
        part = values[start : start + _MOST_LANES]
        letters = _letters(_GAP.join([value.bytes for value in part]), len(part))
        found += [prefix + letters[at : at + DIGITS] for at in range(2, _LANE_LETTERS * len(part), _LANE_LETTERS)]
    return found


def decode(digits: str) -> UUID | None:
    """The uuid with these digits; None where they are not 26 digits of one."""
    if not _PLAIN.fullmatch(digits):
        return None
    try:
        return UUID(int=int(digits.translate(_TO_BASE_32), 32))
    except ValueError:
        return None


def _letters(data: bytes, lanes: int) -> str:
    n = int.from_bytes(data, "big")
    n = n & _STAY_16 | (n & _MOVE_16) << 16
    n = n & _STAY_8 | (n & _MOVE_8) << 8
    n = n & _STAY_4 | (n & _MOVE_4) << 4
    n = n & _STAY_2 | (n & _MOVE_2) << 2
    n = n & _STAY_1 | (n & _MOVE_1) << 1
    return binascii.b2a_base64(n.to_bytes(_LANE_BYTES * lanes, "big"), newline=False).translate(_LETTERS).decode()


def _masks() -> list[int]:
    """For each step the bits that stay and those that move, in all lanes."""
    places = [5 * digit for digit in range(DIGITS)]
    found = []
    for step in (16, 8, 4, 2, 1):
        stay = sum(31 << places[digit] for digit in range(DIGITS) if not digit & step)
        move = sum(31 << places[digit] for digit in range(DIGITS) if digit & step)
        found += [sum(mask << 8 * _LANE_BYTES * lane for lane in range(_MOST_LANES)) for mask in (stay, move)]
        places = [place + step if digit & step else place for digit, place in enumerate(places)]
    return found


_STAY_16, _MOVE_16, _STAY_8, _MOVE_8, _STAY_4, _MOVE_4, _STAY_2, _MOVE_2, _STAY_1, _MOVE_1 = _masks()
