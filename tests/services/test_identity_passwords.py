from __future__ import annotations

import asyncio

import pytest
from argon2 import PasswordHasher, extract_parameters

from core.errors import BadInput, RateLimited
from services.identity.passwords import check_password, hash_password, needs_rehash, verify_password

GOOD = "violet harbour seven lanterns"


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "nGv7!qz_Lp2#",
        "müßiggänger-am-see",
        "ключ от старого дома",
        "x" * 3 + GOOD,
        "🜁🜂🜃🜄🜁🜂🜃🜄🜁🜂🜃🜅",
        "a" * 100 + GOOD,
    ],
)
def test_long_and_uncommon_passwords_are_taken(password: str) -> None:
    check_password(password, about=("Demo Engineer", "engineer@acme.example"))


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "Passw0rd2024!!",
        "P@ssw0rdP@ssw0rd",
        "welcome-admin-2026",
        "123456789012",
        "qwertyuiopasdf",
        "aaaaaaaaaaaaaaaa",
        "abababababab",
        "correct horse battery staple",
        "engineer@acme.example",
        "Demo Engineer 1!",
        "quarterdeck2026",
    ],
)
def test_common_and_obvious_passwords_are_refused(password: str) -> None:
    with pytest.raises(BadInput, match="first that are guessed") as refusal:
        check_password(password, about=("Demo Engineer", "engineer@acme.example"))
    assert refusal.value.field == "password"


@pytest.mark.parametrize("password", ["", "short", "elevenchars", "v" * 128 + "w" * 129])
def test_length_is_12_to_256_characters(password: str) -> None:
    with pytest.raises(BadInput, match="characters"):
        check_password(password)


@pytest.mark.anyio
async def test_a_hash_is_argon2id_and_fits_one_password() -> None:
    stored = await hash_password(GOOD)
    parameters = extract_parameters(stored)
    assert stored.startswith("$argon2id$")
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19 * 1024, 2, 1)
    assert await verify_password(stored, GOOD)
    assert not await verify_password(stored, GOOD + " ")
    assert not needs_rehash(stored)


@pytest.mark.anyio
async def test_one_password_however_its_letters_are_composed() -> None:
    assert await verify_password(
        await hash_password("Mu\u0308\u00dfigga\u0308nger am See"), "M\u00fc\u00dfigg\u00e4nger am See"
    )


@pytest.mark.anyio
async def test_no_password_and_broken_hashes_fit_nothing() -> None:
    assert not await verify_password(None, "nobody has this password")
    assert not await verify_password("$argon2id$broken", GOOD)
    assert not await verify_password(await hash_password(GOOD), "x" * 1_000_000)


def test_hashes_with_other_parameters_are_to_be_made_again() -> None:
    assert needs_rehash(PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(GOOD))


@pytest.mark.anyio
async def test_the_loop_goes_on_while_passwords_are_hashed_and_a_flood_is_refused() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    heart = asyncio.create_task(beat())
    answers = await asyncio.gather(*(verify_password(None, GOOD) for _ in range(80)), return_exceptions=True)
    heart.cancel()
    assert beats > 100
    refused = [answer for answer in answers if isinstance(answer, RateLimited)]
    assert len(refused) == 16
    assert refused[0].details["retryAfterSeconds"] > 0
