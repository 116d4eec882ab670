"""TypeIDs, one by one and by the hundred."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some

from core.errors import BadInput, NotFound
from core.ids import decode, encode, encode_many, new_id

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def by_division(value: UUID) -> str:
    """As the specification has it, digit by digit."""
    n, digits = value.int, ""
    for _ in range(26):
        n, digit = divmod(n, 32)
        digits = ALPHABET[digit] + digits
    return digits


@given(some.lists(some.uuids(), max_size=200))
def test_every_uuid_has_its_digits_alone_and_among_others(values: list[UUID]) -> None:
    expected = [f"ses_{by_division(value)}" for value in values]
    assert encode_many("ses", values) == expected
    assert [encode("ses", value) for value in values] == expected
    assert [decode("ses", text) for text in expected] == values


def test_the_ends_of_the_range() -> None:
    for n in (0, 1, 31, 32, 2**64 - 1, 2**64, 2**127, 2**128 - 1):
        assert encode("usr", UUID(int=n)) == f"usr_{by_division(UUID(int=n))}"
        assert decode("usr", encode("usr", UUID(int=n))).int == n


def test_ids_sort_by_time() -> None:
    made = [encode("run", new_id()) for _ in range(1000)]
    assert made == sorted(made)


@pytest.mark.parametrize(
    "digits",
    [
        "", "0" * 25, "0" * 27, "8" + "0" * 25, "I" + "0" * 25, "0" * 25 + "i", "0" * 25 + "l", "0" * 25 + "o",
        "0" * 25 + "u", "0" * 25 + "A", "+" + "0" * 25, "0" * 25 + " ", " " + "0" * 25, "0" * 12 + "_" + "0" * 13,
        "٣" + "0" * 25, "0" * 25 + "\n", "0" * 25 + "\0",
    ],
)  # fmt: skip
def test_what_is_no_id_is_refused(digits: str) -> None:
    with pytest.raises(BadInput):
        decode("ses", f"ses_{digits}")


def test_another_kind_is_not_found() -> None:
    with pytest.raises(NotFound, match="Message"):
        decode("ses", encode("msg", new_id()))
