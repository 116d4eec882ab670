"""What a confined program sees, may do, and leaves behind."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from core import processes
from core.errors import BadInput, Unavailable
from core.settings import Settings
from integrations.sandbox.base import Sandbox
from integrations.sandbox.bubblewrap import BubblewrapSandbox
from integrations.sandbox.detect import detect
from tests.integrations.conftest import eventually


async def run(
    sandbox: Sandbox,
    workspace: Path,
    script: str,
    *,
    network: bool = False,
    home: Path | None = None,
) -> tuple[int, str]:
    wrapped = sandbox.wrap(
        ["sh", "-c", script],
        workspace=workspace,
        environment={"GIVEN": "yes"},
        network=network,
        home=home,
    )
    process = await processes.spawn(
        wrapped.argv,
        environment=wrapped.environment,
        directory=wrapped.directory,
        merge_stderr=True,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, output.decode()


@pytest.fixture
def bubblewrap(settings: Settings) -> Sandbox:
    report = detect(settings)
    if not report.works:
        pytest.skip(report.reason)
    return report.sandbox


@pytest.mark.anyio
async def test_environment_is_cleared(each_sandbox: Sandbox, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", "do-not-leak")
    code, output = await run(each_sandbox, workspace, "env")
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert code == 0
    assert names <= {
        "PATH",
        "HOME",
        "LANG",
        "TMPDIR",
        "GIVEN",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    }
    assert "do-not-leak" not in output


@pytest.mark.anyio
async def test_workspace_is_writable_at_its_own_path(each_sandbox: Sandbox, workspace: Path) -> None:
    code, output = await run(each_sandbox, workspace, "pwd && echo made > file && cat file")
    assert (code, output) == (0, f"{workspace}\nmade\n")
    assert (workspace / "file").read_text() == "made\n"
    assert (workspace / "file").stat().st_uid == os.getuid()


@pytest.mark.anyio
async def test_data_of_others_cannot_be_seen(bubblewrap: Sandbox, workspace: Path, settings: Settings) -> None:
    other = settings.workspaces / "two"
    other.mkdir()
    (other / "secret").write_text("theirs")
    (settings.data / "key").write_text("sealing key")
    _, output = await run(
        bubblewrap,
        workspace,
        f"ls -A {settings.data} {settings.workspaces}; cat {other}/secret {settings.data}/key; true",
    )
    assert "theirs" not in output
    assert "sealing key" not in output
    assert "two" not in output.replace(f"{other}/secret", "")


@pytest.mark.anyio
async def test_home_of_the_user_is_hidden(bubblewrap: Sandbox, workspace: Path) -> None:
    marker = Path.home() / ".bash_history"
    _, output = await run(
        bubblewrap,
        workspace,
        f"ls -A {Path.home()}; test -e {marker} && echo visible; echo $HOME",
    )
    assert "visible" not in output
    assert ".ssh" not in output
    assert output.splitlines()[-1] == "/tmp/home"


@pytest.mark.anyio
async def test_system_is_read_only_and_processes_outside_are_hidden(bubblewrap: Sandbox, workspace: Path) -> None:
    _, output = await run(
        bubblewrap,
        workspace,
        "touch /usr/x || echo usr-refused; touch /etc/x || echo etc-refused; cat /etc/shadow || echo shadow-refused;"
        " cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness || echo proc-refused; ls -d /proc/[0-9]* | wc -l",
    )
    for name in ("usr", "shadow", "proc"):
        assert f"{name}-refused" in output
    assert int(output.split()[-1]) < 8


@pytest.mark.anyio
async def test_network_is_given_or_not(bubblewrap: Sandbox, workspace: Path) -> None:
    interfaces = "cat /proc/net/dev | tail -n +3 | wc -l; ls /proc/self/ns/net -l | sed 's/.*-> //'"
    _, without = await run(bubblewrap, workspace, interfaces)
    _, given = await run(bubblewrap, workspace, interfaces, network=True)
    outside = os.readlink("/proc/self/ns/net")
    assert outside in given
    assert outside not in without


@pytest.mark.anyio
async def test_our_python_and_its_console_scripts_run(each_sandbox: Sandbox, workspace: Path) -> None:
    code, output = await run(each_sandbox, workspace, "python -c 'import mcp, sys; print(sys.prefix)'")
    assert (code, output.strip()) == (0, sys.prefix)


@pytest.mark.anyio
async def test_a_given_home_outlives_the_program(each_sandbox: Sandbox, workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    await run(each_sandbox, workspace, "echo kept > $HOME/note", home=home)
    assert (home / "note").read_text() == "kept\n"


@pytest.mark.anyio
async def test_killing_it_kills_what_it_started(each_sandbox: Sandbox, workspace: Path) -> None:
    wrapped = each_sandbox.wrap(
        ["sh", "-c", "sleep 3571 & sleep 3571 & echo started; wait"],
        workspace=workspace,
        environment={},
        network=False,
    )
    process = await processes.spawn(wrapped.argv, environment=wrapped.environment, directory=wrapped.directory)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"started\n"
    await processes.end(process)
    await eventually(lambda: not _running("3571"))


@pytest.mark.anyio
async def test_nothing_secret_is_in_the_argument_list(each_sandbox: Sandbox, workspace: Path) -> None:
    wrapped = each_sandbox.wrap(["true"], workspace=workspace, environment={"TOKEN": "s3cret"}, network=False)
    assert "s3cret" not in " ".join(wrapped.argv)
    assert "s3cret" not in repr(wrapped)


def test_missing_program_is_named(each_sandbox: Sandbox, workspace: Path) -> None:
    with pytest.raises(BadInput, match="no-such-program"):
        each_sandbox.wrap(["no-such-program"], workspace=workspace, environment={}, network=False)


def test_data_folder_and_homes_are_never_shown(settings: Settings, workspace: Path) -> None:
    sandbox = BubblewrapSandbox(Path("/usr/bin/bwrap"), settings.data)
    for path in (settings.data, settings.data / "keys", Path.home(), Path("/")):
        with pytest.raises(BadInput):
            sandbox.wrap(
                ["sh"],
                workspace=workspace,
                environment={},
                network=False,
                read_only=[path],
            )


def test_settings_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = detect(Settings(home=tmp_path, sandbox="none"))
    assert (report.sandbox.name, report.works) == ("none", False)
    monkeypatch.setenv("PATH", "/nowhere")
    missing = Settings(home=tmp_path / "other", sandbox="auto")
    report = detect(missing)
    assert report.sandbox.name == "none"
    assert "apt-get install bubblewrap" in report.reason
    with pytest.raises(Unavailable, match="not installed"):
        detect(Settings(home=tmp_path / "third", sandbox="bubblewrap"))


def _running(argument: str) -> bool:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in entry.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False
