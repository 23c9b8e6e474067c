"""Journal: the logs of the rooms in an SQLite file, so that they survive the server.

Whatever a turn of the loop has added is committed before any of it is sent: a number that somebody has seen never
stands for another line after a restart. In WAL mode a commit waits for no disk: what is committed survives the process,
however it ends, but not always a power failure. Bringing the log of writes back into the file, which does wait for the
disk, is left to a thread.
"""

import contextlib
import fcntl
import os
import secrets
import sqlite3
import threading
from typing import IO

from chat.protocol.errors import ChatError
from chat.protocol.fields import INBOX
from chat.server.following import Keeper
from chat.server.log import Log
from chat.server.rooms import Rooms

#: "chat", in the header of the file, and the version of the tables.
APPLICATION_ID = 0x63686174
VERSION = 1
#: Lines written between two checkpoints, and lines of a log that are deleted at once when it has dropped them.
CHECKPOINT_LINES = 2_000
#: A checkpoint beside an endless stream of commits never catches up with it: beyond this the stream has to wait for it.
MAX_WAL_BYTES = 64 << 20
TRIM_LINES = 500

_TABLES = """
CREATE TABLE line (room TEXT, seq INTEGER, data BLOB, PRIMARY KEY (room, seq)) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""


class JournalError(ChatError):
    """The file cannot be used; the sentence says which and why."""


class Journal(Keeper):
    """Used by one server at a time.

    Args:
        path: the file; made if there is none.

    Raises:
        JournalError: it is something else, damaged, used by another server, or cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: list[tuple[str, int, bytes]] = []
        self._forgotten: list[Log] = []
        #: For each room, the number of the first line that the file still has.
        self._first_seq: dict[str, int] = {}
        self._trimmed: dict[str, int] = {}
        self._since_checkpoint = 0
        self._checkpoint: threading.Thread | None = None
        self._lock = self._acquire()
        try:
            # The thread that makes checkpoints has a connection of its own.
            self._database = sqlite3.connect(path, isolation_level=None)
            self._set_up()
        except (sqlite3.Error, JournalError) as error:
            self._lock.close()
            raise error if isinstance(error, JournalError) else self._fault("cannot be used", error) from error

    def __repr__(self) -> str:
        return f"<Journal {self._path}, {len(self._lines)} line(s) to be written>"

    @property
    def history(self) -> str:
        """What tells these logs from those of any other server."""
        return self._fact("history")

    def restore(self, rooms: Rooms) -> None:
        """Fill the rooms with what the file holds.

        Raises:
            JournalError: the file is damaged.
        """
        try:
            rooms.go_on_after(int(self._fact("last_seq")))
            lines: dict[str, tuple[int, list[bytes]]] = {}
            for room, seq, data in self._database.execute("SELECT room, seq, data FROM line ORDER BY room, seq"):
                first_seq, found = lines.setdefault(room, (seq, []))
                if seq != first_seq + len(found):
                    raise JournalError(f"The journal {self._path} is damaged: line {seq - 1} of {room} is missing.")
                found.append(data)
        except sqlite3.Error as error:
            raise self._fault("is damaged", error) from error
        for room, (first_seq, found) in lines.items():
            rooms.restore(room, first_seq, found)
            self._first_seq[room] = first_seq

    def keep(self, log: Log, line: bytes) -> None:
        """A line was appended."""
        if log.name == INBOX:
            return
        self._lines.append((log.name, log.last_seq, line))
        if log.first_seq - self._first_seq.setdefault(log.name, log.first_seq) >= TRIM_LINES:
            self._trimmed[log.name] = self._first_seq[log.name] = log.first_seq

    def forget(self, log: Log) -> None:
        """A room is empty, or a session is over."""
        if log.name != INBOX:
            self._forgotten.append(log)

    def commit(self) -> None:
        """Write what there is to be written.

        Raises:
            JournalError: it cannot be written.
        """
        if not self._lines and not self._forgotten:
            return
        try:
            self._write()
        except sqlite3.Error as error:
            raise self._fault("cannot be written", error) from error
        self._since_checkpoint += len(self._lines)
        self._lines, self._trimmed, self._forgotten = [], {}, []
        if self._since_checkpoint >= CHECKPOINT_LINES and (self._checkpoint is None or not self._checkpoint.is_alive()):
            self._since_checkpoint = 0
            self._begin_checkpoint()

    def close(self) -> None:
        """Write the rest and free everything."""
        self.commit()
        if self._checkpoint is not None:
            self._checkpoint.join()
        self._database.close()
        self._lock.close()

    def _acquire(self) -> IO[bytes]:
        try:
            file = open(self._path, "ab")  # noqa: SIM115
        except OSError as error:
            raise JournalError(f"The journal {self._path} cannot be used: {(error.strerror or '').lower()}.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise JournalError(f"The journal {self._path} is used by another server.") from error
        return file

    def _set_up(self) -> None:
        database = self._database
        (found,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables and not found:
            database.execute("PRAGMA journal_mode = WAL")
            facts = f"INSERT INTO fact VALUES ('history', '{secrets.token_urlsafe(12)}'), ('last_seq', 0);"
            header = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            database.executescript(f"BEGIN; {_TABLES} {facts} {header} COMMIT;")
        elif found != APPLICATION_ID or version != VERSION:
            raise JournalError(f"{self._path} is not a journal of this chat.")
        else:
            (fault,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if fault != "ok":
                reason = fault.splitlines()[-1].rstrip(".")
                raise JournalError(f"The journal {self._path} is damaged: {reason}.")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")

    def _write(self) -> None:
        execute = self._database.execute
        execute("BEGIN")
        self._database.executemany("INSERT INTO line VALUES (?, ?, ?)", self._lines)
        for room, first_seq in self._trimmed.items():
            execute("DELETE FROM line WHERE room = ? AND seq < ?", (room, first_seq))
        for log in self._forgotten:
            execute("DELETE FROM line WHERE room = ? AND seq <= ?", (log.name, log.last_seq))
            execute("UPDATE fact SET value = max(value, ?) WHERE name = 'last_seq'", (log.last_seq,))
            self._first_seq.pop(log.name, None)
        execute("COMMIT")

    def _begin_checkpoint(self) -> None:
        if os.path.getsize(f"{self._path}-wal") > MAX_WAL_BYTES:
            with contextlib.suppress(sqlite3.Error):  # nothing is lost: the next one may succeed
                self._database.execute("PRAGMA wal_checkpoint(RESTART)")
        else:
            self._checkpoint = threading.Thread(target=self._make_checkpoint, daemon=True)
            self._checkpoint.start()

    def _make_checkpoint(self) -> None:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self._path)) as database:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _fact(self, name: str) -> str:
        return str(self._database.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()[0])

    def _fault(self, what: str, error: sqlite3.Error) -> JournalError:
        return JournalError(f"The journal {self._path} {what}: {error}.")
