"""Where seeds come from: a server of this machine with a git repository (`git http-backend`) and files."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Origin:
    """`files` are served at their names; a name with a text instead of bytes redirects there."""

    folder: Path
    url: str = ""
    files: dict[str, bytes | str] = field(default_factory=dict)

    @property
    def repository(self) -> str:
        return f"{self.url}/repository.git"

    def commit(self, files: Mapping[str, str], *, branch: str = "main") -> str:
        """Commit files to a branch; gives the commit's id."""
        work = self.folder / "work"
        if not work.exists():
            self._git("init", "-q", "--bare", "repository.git", at=self.folder)
            self._git("clone", "-q", "repository.git", "work", at=self.folder)
        self._git("checkout", "-q", "-B", branch, at=work)
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)
        self._git("add", "-A", at=work)
        self._git("commit", "-q", "-m", "Change", at=work)
        self._git("push", "-q", "-f", "origin", branch, at=work)
        return self._git("rev-parse", "HEAD", at=work).strip()

    def _git(self, *arguments: str, at: Path) -> str:
        names = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", *arguments],
            cwd=at,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1"}
            | dict.fromkeys(names, "tests@tests.example"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def origin(folder: Path) -> Iterator[Origin]:
    """A running origin."""
    found = Origin(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith("/repository.git/"):
                self._backend()
                return
            content = found.files.get(path.lstrip("/"))
            if content is None:
                self.send_error(404)
            elif isinstance(content, str):
                self.send_response(302)
                self.send_header("location", content)
                self.end_headers()
            else:
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def do_POST(self) -> None:
            self._backend()

        def _backend(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            done = subprocess.run(
                ["git", "http-backend"],
                input=body,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(folder),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                    "PATH_INFO": parts.path,
                    "QUERY_STRING": parts.query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("content-type", ""),
                    "HTTP_GIT_PROTOCOL": self.headers.get("git-protocol", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
                },
                capture_output=True,
            )
            head, _, rest = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
