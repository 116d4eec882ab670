"""No combination of sums that are shown is a sum of too few people."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from services.metrics.people import keeps_floor

FLOOR = 5


def people(*parts: range) -> set[int]:
    return {number for part in parts for number in part}


@pytest.mark.parametrize(
    ("everybody", "groups", "safe"),
    [
        (range(20), [range(6)], True),
        (range(20), [range(4)], False),
        (range(8), [range(6)], False),  # what is left of the whole is two people
        (range(10), [range(5), range(5, 10)], True),
        (range(14), [range(5), range(5, 10)], False),  # what both leave is four
        (range(20), [range(6), range(7)], False),  # one is in the second and not in the first
        (range(30), [range(10), range(9, 19)], True),  # who is in both cannot be told from the sums
        (range(19), [range(10), range(9, 19)], False),  # here they can: both together, without the whole
        (range(30), [range(3), range(3, 30)], False),
        (range(0), [range(4)], True),
    ],
)
def test_sums_of_groups_and_of_the_whole_give_no_few_away(everybody: range, groups: list[range], safe: bool) -> None:
    assert keeps_floor(set(everybody), [set(group) for group in groups], FLOOR) is safe  # type: ignore[arg-type]


def test_it_agrees_with_trying_all_combinations() -> None:
    """By brute force over small groups: a combination with coefficients from -3 to 3 that has few people in it is
    found, so where there is one the answer is no."""
    rng = Random(5)
    for _ in range(150):
        everybody = set(range(rng.randint(8, 16)))
        groups = [set(rng.sample(sorted(everybody), rng.randint(3, len(everybody)))) for _ in range(rng.randint(1, 3))]
        safe = keeps_floor(everybody, groups, FLOOR)  # type: ignore[arg-type]
        if _gives_away(everybody, groups):
            assert not safe, (everybody, groups)


def _gives_away(everybody: set[int], groups: list[set[int]]) -> bool:
    rows = [everybody, *groups]
    coefficients = [[]]  # type: list[list[int]]
    for _ in rows:
        coefficients = [[*some, more] for some in coefficients for more in (-2, -1, 0, 1, 2)]
    for some in coefficients:
        weight = {one: sum(times for times, row in zip(some, rows, strict=True) if one in row) for one in everybody}
        if 0 < sum(1 for value in weight.values() if value) < FLOOR:
            return True
    return False


def test_a_group_more_never_makes_safe_what_was_not() -> None:
    rng = Random(6)
    for _ in range(100):
        everybody = set(range(20))
        groups = [set(rng.sample(range(20), rng.randint(5, 12))) for _ in range(4)]
        for some in combinations(groups, 2):
            if not keeps_floor(everybody, some, FLOOR):  # type: ignore[arg-type]
                assert not keeps_floor(everybody, groups, FLOOR)  # type: ignore[arg-type]
