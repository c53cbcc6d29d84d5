"""Rows on disk that several processes share: a SQLite file with a write-ahead log.

SQLite and not LMDB: a damaged file is an error there, while LMDB maps the file into memory and
ends the process; it is in the standard library; and it may be opened twice in one process. A
process that is killed loses what it had not committed and leaves a file that others go on with.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...errors import ConfigError, FailureLog
from ..runtime.process import OwnerProcess

_logger = logging.getLogger(__name__)
_FILE = "vectors.sqlite3"
# Marks our files among all SQLite files, and the version of their tables.
_APPLICATION, _VERSION = 0x52505631, 1
_TABLE = (
    "CREATE TABLE IF NOT EXISTS vectors "
    "(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, row BLOB NOT NULL)"
)
_PUT = (
    "INSERT INTO vectors(key, row) VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET row = excluded.row"
)
_PAGE_BYTES = 4096
# How long a writer waits for another, and how long rows are gathered before they are written.
_BUSY_S, _GATHER_S = 5.0, 0.1
# More are dropped: a disk that does not keep up must not take the memory.
_MOST_PENDING = 20_000
_MOST_PARAMETERS = 500
# The share of the bound that the log may take, and the share of rows that go at a time.
_LOG_SHARE, _GOING_SHARE = 8, 16


class SharedRows:
    """Rows in a folder, bounded by `max_bytes`; the oldest go first. Thread-safe.

    Rows are written by a thread of its own, together; this process finds them at once, others when
    they are written. Whoever can write the folder decides scores: a new one is this user's alone.
    Raises `ConfigError` for a file that is damaged or something else; damage that shows later is
    logged, and from then on nothing is found.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.path = folder.expanduser() / _FILE
        self._log_pages = max(16, max_bytes // _LOG_SHARE // _PAGE_BYTES)
        self._most_bytes = max_bytes - self._log_pages * _PAGE_BYTES
        self._owner = OwnerProcess("the memory of vectors")
        self._failures = FailureLog(_logger, f"vectors in {self.path} cannot be used: %s")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._writer = self._connect()
            with _closed_on_error(self._writer):
                _prepare(self._writer, self.path)
                self._writer.execute(f"PRAGMA wal_autocheckpoint = {self._log_pages}")
                self._reader = self._connect()
        except (OSError, sqlite3.Error) as error:
            message = (
                f"{self.path} cannot be used as a memory of vectors: {error}. Delete the file (the "
                "vectors are made again), or give another folder"
            )
            raise ConfigError(message) from error
        self._broken = False
        self._closed = False
        self._pending: dict[bytes, bytes] = {}
        self._changed = threading.Condition()
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._thread = threading.Thread(target=self._work, name="rerank-vectors", daemon=True)
        self._thread.start()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, None where there is none."""
        self._owner.check()
        # Before the file is read: what is written meanwhile is pending no longer.
        with self._changed:
            pending = [self._pending.get(key) for key in keys]
        found: dict[bytes, bytes] = {}
        if not self._broken:
            with self._failures, self._reading:
                found = self._read(keys)
        return [row or found.get(key) for key, row in zip(keys, pending, strict=True)]

    def put(self, rows: Mapping[bytes, bytes]) -> None:
        """Keep rows, soon; one that is there, such as a damaged one, is replaced."""
        self._owner.check()
        with self._changed:
            if not self._closed and len(self._pending) < _MOST_PENDING:
                self._pending.update(rows)
                self._changed.notify()

    def flush(self) -> None:
        """Write what is pending; other processes find it when this returns."""
        with self._writing:
            with self._changed:
                rows = dict(self._pending)
            if rows and not self._broken:
                with self._failures:
                    self._write(rows)
            with self._changed:
                for key in rows:
                    self._pending.pop(key, None)

    def close(self) -> None:
        """Write what is pending and close the file; do nothing in a fork."""
        if self._owner.forked or self._closed:
            return
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self.flush()
        with self._reading, self._writing:
            self._reader.close()
            self._writer.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._changed.wait(_GATHER_S)
            self.flush()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        try:
            for start in range(0, len(keys), _MOST_PARAMETERS):
                some = keys[start : start + _MOST_PARAMETERS]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, row FROM vectors WHERE key IN ({marks})"  # noqa: S608
                found.update(self._reader.execute(query, some))
        except sqlite3.DatabaseError as error:
            self._broken = not isinstance(error, sqlite3.OperationalError)
            raise
        return found

    def _write(self, rows: Mapping[bytes, bytes]) -> None:
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            self._make_room(sum(map(len, rows.values())))
            writer.executemany(_PUT, rows.items())
            writer.execute("COMMIT")
        except sqlite3.Error as error:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            self._broken = not isinstance(error, sqlite3.OperationalError)
            raise

    def _make_room(self, row_bytes: int) -> None:
        """Delete the oldest rows until so many bytes more fit; the file reuses their pages."""
        while _file_bytes(self._writer) + row_bytes * 2 > self._most_bytes:
            first, last = self._writer.execute("SELECT min(id), max(id) FROM vectors").fetchone()
            if first is None:
                return
            until = first + (last - first) // _GOING_SHARE
            self._writer.execute("DELETE FROM vectors WHERE id <= ?", (until,))


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    """Close a connection if what is done with it fails."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file, or check those of an old one. Raises `ConfigError`."""
    connection.execute("BEGIN IMMEDIATE")
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version")
    )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not application and not tables:
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        application, version = _APPLICATION, _VERSION
    connection.execute("COMMIT")
    if (application, version) != (_APPLICATION, _VERSION):
        message = (
            f"{path} is a SQLite file of another program or version (application {application:#x}, "
            f"version {version}); expected {_APPLICATION:#x}, {_VERSION}. Give another folder"
        )
        raise ConfigError(message)
    # Waits for the disk at checkpoints alone: a power cut may cost the last rows, never the file.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        message = f"{path} is damaged ({damage}); delete it, and the vectors are made again"
        raise ConfigError(message)


def _file_bytes(connection: sqlite3.Connection) -> int:
    """Return what the pages in use take."""
    pages, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count")
    )
    return (int(pages) - int(free)) * _PAGE_BYTES
