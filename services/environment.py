"""Environment variables of an organisation: named values that sessions give to their tools, never read back."""

from __future__ import annotations

import re

from core.errors import BadInput, NotFound, TooLarge
from core.ids import new_id
from core.permissions import Actor, Permission
from models.base import Query
from models.mcp_servers import EnvironmentVariable, EnvironmentVariableRow
from services.parts import parts
from services.work import write

LARGEST_VALUE = 32 * 1024
"""Bytes of UTF-8. Linux takes 128 KiB for one variable, name included."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
_COLUMNS = "id, organization_id, name, created_at, updated_at"
"""All but the sealed value, which leaves this file with no row."""

# Variables that decide what a program is, rather than what it is told. Each is one way to make an allowed
# program run code of somebody's choice, or read another configuration than ours.
_REFUSED_NAMES = {
    "decides which programs are run": frozenset({"PATH", "SHELL", "IFS", "PATHEXT", "COMSPEC"}),
    "decides where programs keep and find their own files": frozenset(
        {"HOME", "USER", "LOGNAME", "PWD", "OLDPWD", "TMPDIR"}
    ),
    "makes programs run code before their own": frozenset(
        {"BASH_ENV", "ENV", "BASHOPTS", "SHELLOPTS", "PROMPT_COMMAND", "PS4", "ZDOTDIR"}
        | {"NODE_OPTIONS", "NODE_PATH", "PERL5LIB", "PERL5OPT", "PERL5DB", "PERLLIB", "RUBYLIB", "RUBYOPT"}
        | {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "LUA_PATH", "LUA_CPATH"}
        | {"GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_EDITOR", "GIT_PAGER", "GIT_PROXY_COMMAND"}
        | {"GIT_EXTERNAL_DIFF", "GIT_TEMPLATE_DIR", "SSH_ASKPASS", "EDITOR", "VISUAL", "PAGER", "BROWSER"}
        | {"GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES"}
    ),
}
_REFUSED_PREFIXES = {
    "LD_": "makes programs load code that is not theirs",
    "DYLD_": "makes programs load code that is not theirs",
    "PYTHON": "makes Python run code before a program's own",
    "GIT_CONFIG": "makes git run commands of its configuration",
    "BASH_FUNC_": "makes shells run code before their own",
    "MALLOC_": "changes how programs manage their memory",
    "QUARTERDECK_": "belongs to the service itself",
}


async def set_variable(actor: Actor, name: str, value: str) -> EnvironmentVariableRow:
    """Make a variable, or give it another value. Sessions get it with their next run. Raises BadInput, TooLarge."""
    check_variable_name(name)
    check_variable_value(value)
    async with write(actor, "environment_variable.set") as work:
        actor.require(Permission.TOOLS_MANAGE)
        # The value is sealed for the row's id, which is known only when it is clear who makes the row.
        row = await work.tx.fetchrow(
            "INSERT INTO environment_variables (id, organization_id, name, value_sealed, created_at, updated_at) "
            "VALUES ($1, $2, $3, '', $4, $4) ON CONFLICT (organization_id, name) DO UPDATE SET updated_at = $4 "
            f"RETURNING {_COLUMNS}, xmax = 0 AS created",
            new_id(),
            actor.organization_id,
            name,
            work.at,
            row=EnvironmentVariableRow,
        )
        assert row is not None
        await work.tx.execute(
            "UPDATE environment_variables SET value_sealed = $2 WHERE id = $1",
            row["id"],
            parts().vault.seal(value, purpose=f"env:{row['id']}"),
        )
        work.target("EnvironmentVariable", row["id"], name)
        work.changed(after={"name": name, "created": row["created"], "value": "[redacted]"})
    return row


async def delete_variable(actor: Actor, name: str) -> EnvironmentVariableRow:
    """Remove a variable. Runs of sessions that name it fail from then on, and say so. Raises NotFound."""
    _check_shape(name, "name")
    async with write(actor, "environment_variable.delete") as work:
        actor.require(Permission.TOOLS_MANAGE)
        query = Query()
        row = await work.tx.fetchrow(
            f"DELETE FROM environment_variables WHERE name = {query.arg(name)} "
            f"AND {query.scope(EnvironmentVariable.visible_to(actor))} RETURNING {_COLUMNS}",
            *query.args,
            row=EnvironmentVariableRow,
        )
        if row is None:
            raise NotFound("There is no environment variable of this name.", field="name")
        work.target("EnvironmentVariable", row["id"], row["name"])
        work.changed(before={"name": row["name"]})
    return row


def check_variable_name(name: str, *, field: str = "name") -> None:
    """Raises BadInput for what is no name, and for names that would make programs run somebody else's code."""
    _check_shape(name, field)
    for reason, names in _REFUSED_NAMES.items():
        if name in names:
            raise _refused(name, reason, field)
    for prefix, reason in _REFUSED_PREFIXES.items():
        if name.startswith(prefix):
            raise _refused(name, reason, field)


def check_variable_value(value: str, *, field: str = "value") -> None:
    """Raises BadInput, TooLarge for what no program can be given as a variable."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadInput("The value is not Unicode text: it has half a surrogate pair.", field=field) from None
    if "\0" in value:
        raise BadInput("A variable's value cannot have NUL characters.", field=field)
    if size > LARGEST_VALUE:
        raise TooLarge(f"A variable's value has at most {LARGEST_VALUE} bytes; this one has {size}.", field=field)


def _check_shape(name: str, field: str) -> None:
    if not _NAME.match(name):
        raise BadInput(
            "A variable's name has letters, digits and _, up to 200, and does not begin with a digit.", field=field
        )


def _refused(name: str, reason: str, field: str) -> BadInput:
    return BadInput(f"{name} cannot be set: it {reason}. Give your variable another name.", field=field)
