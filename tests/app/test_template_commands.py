"""The commands `quarterdeck template …`, as people and CI use them: over HTTP, with a token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from app.cli import main
from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.conftest import ROOT, Server
from tests.templating import make_template, publish_untested

pytestmark = pytest.mark.anyio

Command = Callable[..., Result]
BY_NAME = "query ($name: String!) { sessionTemplate(name: $name) { id title latestVersion draft { revision } } }"


def document(name: str, *, title: str = "From CI", spec: str = "{}") -> str:
    return (
        "---\napiVersion: quarterdeck/v1\nkind: SessionTemplate\n"
        f"metadata:\n  name: {name}\n  title: {title}\n  category: development\nspec: {spec}\n"
    )


def a_name() -> str:
    return f"c-{uuid4().hex[:12]}"


@pytest.fixture
def command(people: People, server: Server) -> Command:
    """Runs a command with the member's token."""

    def run(*arguments: str, input: str | None = None, **environment: str) -> Result:
        known = {"QUARTERDECK_URL": server.base, "QUARTERDECK_TOKEN": people.member.client.token}
        return CliRunner().invoke(main, ["template", *arguments], input=input, env=known | environment)

    return run


async def named(client: Client, name: str) -> Json | None:
    return (await client(BY_NAME, name=name))["sessionTemplate"]  # type: ignore[no-any-return]


async def test_a_folder_is_applied_and_applied_again(command: Command, people: People, tmp_path: Path) -> None:
    one, two, three = a_name(), a_name(), a_name()
    (tmp_path / "below").mkdir()
    (tmp_path / "a.yaml").write_text(document(one) + document(two))
    (tmp_path / "below" / "b.yml").write_text(document(three))
    (tmp_path / "README.md").write_text("no template")
    dry = command("apply", "-f", str(tmp_path), "--dry-run")
    assert (dry.exit_code, dry.output) == (
        0,
        "".join(f"{name}: created (dry run)\n" for name in (one, two, three)),
    )
    assert await named(people.member.client, one) is None
    done = command("apply", "-f", str(tmp_path))
    assert (done.exit_code, done.output) == (0, "".join(f"{name}: created\n" for name in (one, two, three)))
    (tmp_path / "a.yaml").write_text(document(one, title="Changed", spec="{model: a:b}") + document(two))
    again = command("apply", "-f", str(tmp_path / "a.yaml"), "-f", str(tmp_path / "below"))
    assert again.output == f"{one}: updated  metadata.title, spec.model\n{two}: unchanged\n{three}: unchanged\n"
    template = await named(people.member.client, one)
    assert template is not None
    assert (template["title"], template["draft"]["revision"]) == ("Changed", 2)


async def test_the_standard_input_is_applied_and_told_as_json(command: Command) -> None:
    name = a_name()
    done = command("apply", "-f", "-", "--output", "json", input=document(name))
    found = json.loads(done.output)
    assert found["dryRun"] is False
    [result] = found["results"]
    assert (result["file"], result["name"], result["action"]) == ("<stdin>", name, "CREATED")
    assert result["template"]["id"].startswith("tpl_")


async def test_problems_are_told_with_file_line_and_column_and_the_rest_is_applied(
    command: Command, people: People, tmp_path: Path
) -> None:
    good, other = a_name(), a_name()
    (tmp_path / "a.yaml").write_text(document(other, spec="{options: {maxTurns: 0}, nothing: 1}"))
    (tmp_path / "b.yaml").write_text("a: [")
    (tmp_path / "c.yaml").write_text(document(good))
    done = command("apply", "-f", str(tmp_path))
    assert done.exit_code == 1
    assert f"{good}: created" in done.stdout
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"{tmp_path}/a.yaml:8:18: spec.options.maxTurns: ")
    assert lines[1].startswith(f"{tmp_path}/a.yaml:8:32: spec.nothing: ")
    assert lines[2].startswith(f"{tmp_path}/b.yaml:")
    assert await named(people.member.client, other) is None
    done = command("apply", "-f", str(tmp_path), "--output", "json")
    assert done.exit_code == 1
    results = json.loads(done.stdout)["results"]
    assert [each.get("action") or each["error"]["code"] for each in results] == ["BAD_INPUT", "BAD_INPUT", "UNCHANGED"]
    assert results[0]["error"]["fields"][0]["line"] == 8


async def test_a_template_is_exported_as_a_file_that_changes_nothing(command: Command, people: People) -> None:
    spec = {"systemPrompt": "One\nTwo sk-abcdefghijklmnopqrstuvwx\n"}
    template = await make_template(people.admin.client, spec=spec, organizationLevel="EDIT")
    await publish_untested(people.admin.client, template["id"])
    done = command("export", template["name"])
    assert done.exit_code == 0
    assert "systemPrompt: |\n    One\n" in done.stdout
    assert done.stderr.startswith("warning: spec.systemPrompt: ")
    assert command("apply", "-f", "-", input=done.stdout).output == f"{template['name']}: unchanged\n"
    assert command("export", template["name"], "--version", "1").stdout == done.stdout
    assert json.loads(command("export", template["name"], "--output", "json").output)["text"] == done.stdout
    missing = command("export", template["name"], "--version", "2")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "version 2" in missing.stderr
    missing = command("export", "no-such-template", "--output", "json")
    assert (missing.exit_code, json.loads(missing.stdout)["error"]["code"]) == (1, "NOT_FOUND")


async def test_templates_are_listed(command: Command, people: People) -> None:
    made = await make_template(people.member.client, title="Listed here")
    done = command("list")
    [line] = [line for line in done.output.splitlines() if line.startswith(made["name"])]
    assert "no version" in line
    assert "Listed here" in line
    found = json.loads(command("list", "--output", "json").output)
    assert made["id"] in [each["id"] for each in found]


async def test_the_schema_is_printed_without_a_server(command: Command) -> None:
    done = command("schema", QUARTERDECK_URL="http://127.0.0.1:1")
    assert done.exit_code == 0
    assert json.loads(done.output)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


PLAYBOOK = "playbook: Greet\nsteps:\n  - say: Hello there\n"


async def test_a_template_goes_from_a_file_to_a_tested_version(command: Command, people: People) -> None:
    """With a token as CI has it, which may do this and nothing else."""
    scopes = '{name: "ci", scopes: [TEMPLATES_READ, TEMPLATES_WRITE, SESSIONS_WRITE]}'
    made = await people.member.client("mutation { createAccessToken(input: %s) { secret } }" % scopes)
    command = partial(command, QUARTERDECK_TOKEN=made["createAccessToken"]["secret"])
    name = a_name()
    spec = {
        "runtime": "script",
        "messages": [PLAYBOOK],
        "test": {"checks": [{"answerContains": "Good bye"}], "timeoutSeconds": 30},
    }
    assert command("apply", "-f", "-", input=document(name, spec=json.dumps(spec))).exit_code == 0
    failed = command("test", name)
    assert failed.exit_code == 1, failed.output
    assert "FAILED" in failed.stdout
    assert f"{name}: failed" in failed.stdout
    refused = command("publish", name, "-m", "Untested")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "No test" in refused.stderr

    spec["test"] = {"checks": [{"answerContains": "Hello"}], "timeoutSeconds": 30}
    assert "updated  spec.test" in command("apply", "-f", "-", input=document(name, spec=json.dumps(spec))).output
    passed = command("test", name)
    assert passed.exit_code == 0, passed.output
    lines = passed.stdout.splitlines()
    assert len(lines) > 2
    assert all(line.startswith("  ok ") for line in lines[:-1])
    digest = lines[-1].split()[-1]
    wrong = command("publish", name, "-m", "Another one", "--digest", "0" * 64)
    assert wrong.exit_code == 1
    published = command("publish", name, "-m", "Says hello", "--digest", digest)
    assert published.output == f"{name}: published version 1  {digest}\n"
    again = json.loads(command("test", name, "--output", "json").output)
    assert (again["status"], again["digest"]) == ("PASSED", digest)
    [line] = [line for line in command("list").output.splitlines() if line.startswith(name)]
    assert "version 1 " in line


async def test_what_is_in_the_way_is_told_in_a_line(command: Command, server: Server, tmp_path: Path) -> None:
    def told(result: Result, exit_code: int) -> str:
        assert result.exit_code == exit_code, result.output
        assert result.stdout == ""
        return result.stderr

    assert "cannot be reached" in told(command("list", QUARTERDECK_URL="http://127.0.0.1:1"), 3)
    assert "cannot be reached" in told(command("list", QUARTERDECK_URL="no address"), 3)
    assert "no GraphQL" in told(command("list", QUARTERDECK_URL=f"{server.base}/healthz"), 3)
    assert "QUARTERDECK_TOKEN" in told(command("list", QUARTERDECK_TOKEN="qdt_wrong"), 1)
    assert "QUARTERDECK_TOKEN" in told(command("list", QUARTERDECK_TOKEN=""), 1)
    assert "no .yaml" in told(command("apply", "-f", str(tmp_path)), 2)
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    assert "UTF-8" in told(command("apply", "-f", str(tmp_path)), 2)
    assert "does not exist" in told(command("apply", "-f", str(tmp_path / "none")), 2)
    assert "publish" in told(command("publish", "x"), 2)
    assert "no template" in told(command("publish", "no-such-template", "-m", "x"), 1)
    unreachable = command(
        "apply", "-f", "-", "--output", "json", input=document("x"), QUARTERDECK_URL="http://127.0.0.1:1"
    )
    assert (unreachable.exit_code, json.loads(unreachable.stdout)["error"]["code"]) == (3, "UNREACHABLE")


def test_the_command_runs_on_a_machine_that_has_nothing_but_url_and_token(
    people: People, server: Server, tmp_path: Path
) -> None:
    def run(*arguments: str, **environment: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", "template", *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    (tmp_path / "a.yaml").write_text(document(a_name()))
    assert people.member.client.token is not None
    done = run("apply", "-f", str(tmp_path), "--url", server.url, "--token", people.member.client.token)
    assert (done.returncode, done.stderr) == (0, "")
    assert "created" in done.stdout
    done = run("apply", "-f", str(tmp_path), QUARTERDECK_URL="http://127.0.0.1:1")
    assert done.returncode == 3
    assert done.stderr.startswith("quarterdeck: ")
    assert "Traceback" not in done.stderr
