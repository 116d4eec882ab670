from __future__ import annotations

import asyncio

import pytest

from core import db
from core.errors import BadInput, Forbidden, NotFound, TooLarge
from core.permissions import Role
from models.base import Row
from resolvers import environment as reads
from services.environment import check_variable_name, delete_variable, set_variable
from services.parts import parts
from services.runs.configuration import runtime_config
from services.sessions.lifecycle import NewSession, create_session
from services.sessions.options import SessionOptions
from tests.services.identity_help import House, a_house, audited

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database: object) -> House:
    return await a_house()


async def stored() -> list[Row]:
    return await db.fetch("SELECT * FROM environment_variables ORDER BY name", row=Row)


async def names(house: House, role: Role = Role.VIEWER) -> list[str]:
    page = await reads.environment_variables(house.actor(role), first=None, after=None)
    return [row["name"] for row in page.rows]


async def test_a_value_reaches_the_runs_of_sessions_that_name_it_and_nobody_else(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    made = await set_variable(admin, "SERVICE_TOKEN", "first-value")
    again = await set_variable(admin, "SERVICE_TOKEN", "second-value")
    assert (again["id"], again["created_at"]) == (made["id"], made["created_at"])
    assert again["updated_at"] > made["updated_at"]
    assert "value_sealed" not in again
    assert await names(house) == ["SERVICE_TOKEN"]
    [row] = await stored()
    assert b"value" not in row["value_sealed"]
    assert parts().vault.open(row["value_sealed"], purpose=f"env:{row['id']}") == "second-value"

    with_it = await create_session(admin, NewSession(options=SessionOptions(environment=("SERVICE_TOKEN",))))
    without = await create_session(admin, NewSession())
    assert (await runtime_config(with_it)).environment == {"SERVICE_TOKEN": "second-value"}
    assert (await runtime_config(without)).environment == {}


async def test_what_is_written_is_audited_without_the_value(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    await set_variable(admin, "SERVICE_TOKEN", "hidden-value")
    await delete_variable(admin, "SERVICE_TOKEN")
    [first] = await audited("environment_variable.set")
    assert (first["target_name"], first["after"]["created"], first["after"]["value"]) == (
        "SERVICE_TOKEN",
        True,
        "[redacted]",
    )
    [last] = await audited("environment_variable.delete")
    assert last["before"] == {"name": "SERVICE_TOKEN"}
    assert "hidden-value" not in str([dict(row) for row in (first, last)])


async def test_a_deleted_variable_is_missed_by_name(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    await set_variable(admin, "GONE", "x")
    session = await create_session(admin, NewSession(options=SessionOptions(environment=("GONE",))))
    await delete_variable(admin, "GONE")
    assert await names(house) == []
    with pytest.raises(NotFound, match="GONE"):
        await runtime_config(session)
    with pytest.raises(NotFound) as refused:
        await delete_variable(admin, "GONE")
    assert refused.value.field == "name"


async def test_many_at_once_make_one_variable_with_a_value_that_opens(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    await asyncio.gather(*(set_variable(admin, "SAME", f"value {number}") for number in range(8)))
    [row] = await stored()
    assert parts().vault.open(row["value_sealed"], purpose=f"env:{row['id']}").startswith("value ")
    created = [record["after"]["created"] for record in await audited("environment_variable.set")]
    assert sorted(created) == [False] * 7 + [True]


async def test_organisations_have_their_own(house: House) -> None:
    other = await a_house("Other")
    await set_variable(house.actor(Role.ADMIN), "SHARED_NAME", "ours")
    await set_variable(other.actor(Role.ADMIN), "SHARED_NAME", "theirs")
    await delete_variable(other.actor(Role.ADMIN), "SHARED_NAME")
    assert await names(house) == ["SHARED_NAME"]
    assert await names(other) == []


@pytest.mark.parametrize("role", [Role.MEMBER, Role.VIEWER])
async def test_only_admins_write(house: House, role: Role) -> None:
    await set_variable(house.actor(Role.ADMIN), "KEPT", "x")
    with pytest.raises(Forbidden):
        await set_variable(house.actor(role), "ANOTHER", "x")
    with pytest.raises(Forbidden):
        await delete_variable(house.actor(role), "KEPT")
    assert await names(house, role) == ["KEPT"]
    assert [row["outcome"] for row in await audited("environment_variable.delete")] == ["REFUSED"]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("PATH", "which programs"),
        ("HOME", "own files"),
        ("LD_PRELOAD", "load code"),
        ("LD_ANYTHING_NEW", "load code"),
        ("DYLD_INSERT_LIBRARIES", "load code"),
        ("PYTHONPATH", "Python"),
        ("PYTHONSTARTUP", "Python"),
        ("NODE_OPTIONS", "run code"),
        ("BASH_ENV", "run code"),
        ("GIT_SSH_COMMAND", "run code"),
        ("GIT_CONFIG_COUNT", "git"),
        ("QUARTERDECK_SECRET_KEY", "service itself"),
    ],
)
def test_names_that_would_hijack_programs_are_refused_with_the_reason(name: str, word: str) -> None:
    with pytest.raises(BadInput, match=word) as refused:
        check_variable_name(name)
    assert refused.value.field == "name"


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "A\n", "A\0", "Ä", "A" * 201])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_variable_name(name, field="environment.0.name")
    assert refused.value.field == "environment.0.name"


async def test_a_refused_name_is_neither_set_nor_deleted(house: House) -> None:
    for write in (set_variable(house.actor(Role.ADMIN), "PATH", "x"), delete_variable(house.actor(Role.ADMIN), "A\0")):
        with pytest.raises(BadInput):
            await write
    assert await stored() == []


async def test_a_value_is_text_of_at_most_32_kib(house: House) -> None:
    admin = house.actor(Role.ADMIN)
    await set_variable(admin, "LARGEST", "é" * (16 * 1024))
    await set_variable(admin, "EMPTY", "")
    await set_variable(admin, "LINES", "a\nb\t")
    with pytest.raises(TooLarge) as refused:
        await set_variable(admin, "TOO_LARGE", "é" * (16 * 1024) + "x")
    assert refused.value.field == "value"
    for value in ("a\0b", "\ud800"):
        with pytest.raises(BadInput):
            await set_variable(admin, "BROKEN", value)
    assert await names(house) == ["LARGEST", "EMPTY", "LINES"]
