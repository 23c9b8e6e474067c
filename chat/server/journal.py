"""Journal: the logs of the rooms, and whose names are whose, in an SQLite file, so that they survive the server.

Whatever a turn of the loop has added is committed before any of it is sent: a number that somebody has seen never
stands for another line after a restart. In WAL mode a commit waits for no disk: what is committed survives the process,
however it ends, but not always a power failure. Bringing the log of writes back into the file, which does wait for the
disk, is left to a thread.
"""

import atexit
import contextlib
import fcntl
import itertools
import logging
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Sequence
from typing import IO

import msgspec

from chat.protocol.errors import ChatError
from chat.protocol.fields import INBOX
from chat.protocol.names import LONGEST_CHARS, fold
from chat.protocol.wire import ROOM_LINE
from chat.records import private
from chat.server.directory import MAX_NAMES
from chat.server.log import Log
from chat.server.members import Session
from chat.server.rooms import Rooms
from chat.words import brief, reason_of, visible

log = logging.getLogger(__name__)

#: The highest number of a line that a journal may hold. Clients take numbers up to twice as high: the server goes on.
MAX_SEQ = 1 << 52

#: "chat", in the header of the file, and the version of the tables.
APPLICATION_ID = 0x63686174
VERSION = 1
#: Lines written between two checkpoints, and lines of a log that are deleted at once when it has dropped them.
CHECKPOINT_LINES = 2_000
#: A checkpoint beside an endless stream of commits never catches up with it: beyond this the stream has to wait for it.
MAX_WAL_BYTES = 64 << 20
TRIM_LINES = 500
#: Kept free beside the file. When the disk is full it is given up, so that what has been accepted can still be written,
#: and nothing more is accepted until there is room for it again.
BALLAST_BYTES = 8 << 20
#: How often to see whether it is still full.
LOOK_AGAIN_S = 1.0

#: What SQLite says of a damaged file; of one that is said to hold more than any has, that it lacks memory.
_FAULTS = (sqlite3.Error, UnicodeDecodeError, MemoryError)

_TABLES = """
CREATE TABLE line (room TEXT, seq INTEGER, data BLOB, PRIMARY KEY (room, seq)) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
#: Younger than the others. Each session that has a key: its first name, folded; the hash of the key; its names.
_OWNERS = "CREATE TABLE IF NOT EXISTS owner (name TEXT PRIMARY KEY, key TEXT, nicks TEXT) WITHOUT ROWID;"


class JournalError(ChatError):
    """The file cannot be used; the sentence says which and why."""


class Journal:
    """Used by one server at a time.

    Args:
        path: the file; made if there is none.
        may_begin: whether an empty file becomes a journal, and an older one one of today.

    Raises:
        JournalError: it is something else, damaged, used by another server, or cannot be written.
    """

    def __init__(self, path: str, *, may_begin: bool = True) -> None:
        self._path = path
        self._may_begin = may_begin
        self._lines: list[tuple[str, int, bytes]] = []
        self._forgotten: list[Log] = []
        #: Topics that are to be written.
        self._topics: dict[str, str] = {}
        #: Rows of `owner` that are to be written, or to go, by their names.
        self._owners: dict[str, tuple[str, str, str] | None] = {}
        #: For each room, the number of the first line that the file still has.
        self._first_seq: dict[str, int] = {}
        self._trimmed: dict[str, int] = {}
        self._since_checkpoint = 0
        self._checkpoint: threading.Thread | None = None
        self._is_full = False
        self._look_again_s = 0.0
        self._lock = self._acquire()
        had_wal = os.path.exists(f"{path}-wal")
        try:
            # The thread that makes checkpoints has a connection of its own.
            self._database = sqlite3.connect(path, isolation_level=None)
            self._set_up()
            self._note_open(had_wal)
            self._is_full = not self._take_ballast()
        except JournalError:
            self._lock.close()
            raise
        except _FAULTS as error:
            self._lock.close()
            raise self._fault("cannot be used", error) from error
        # An interpreter that ends closes the database in any case; then the note that it is open must not stay behind.
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<Journal {self._path}, {len(self._lines)} line(s) to be written>"

    @property
    def history(self) -> str:
        """What tells these logs from those of any other server."""
        return str(self._fact("history"))

    def has_room(self) -> bool:
        """Whether more can be accepted, or the disk is full; if it was, look again now and then."""
        if self._is_full and (now_s := time.monotonic()) >= self._look_again_s:
            self._look_again_s = now_s + LOOK_AGAIN_S
            self._is_full = not self._take_ballast()
            if not self._is_full:
                log.info("%s has room again", self._path)
        return not self._is_full

    def restore(self, rooms: Rooms) -> list[tuple[str, list[str]]]:
        """Fill the rooms with what the file holds.

        Returns:
            for each session that had a key and did not end: the hash of the key, and its names.

        Raises:
            JournalError: the file is damaged; the sentence says where.
        """
        try:
            self._fact("history")
            last_seq = self._fact("last_seq")
            lines = self._read_lines()
            owners = self._read_owners()
            topics = dict(self._database.execute("SELECT substr(name, 7), value FROM fact WHERE name LIKE 'topic %'"))
        except _FAULTS as error:
            raise self._fault("is damaged", error) from error
        if not isinstance(last_seq, int) or not 0 <= last_seq <= MAX_SEQ:
            raise self._damage(f"its last_seq is {last_seq!r}")
        rooms.go_on_after(last_seq)
        for room, (first_seq, found) in lines.items():
            rooms.restore(room, first_seq, found, str(topics.get(room, "")))
            self._first_seq[room] = first_seq
        return owners

    def keep(self, log: Log, lines: Sequence[bytes]) -> None:
        """Lines were added."""
        if log.name == INBOX:
            return
        self._lines += zip(itertools.repeat(log.name), itertools.count(log.last_seq + 1 - len(lines)), lines)
        if log.first_seq - self._first_seq.setdefault(log.name, log.first_seq) >= TRIM_LINES:
            self._trimmed[log.name] = self._first_seq[log.name] = log.first_seq

    def keep_topic(self, log: Log, topic: str) -> None:
        """The room is about something else now."""
        self._topics[log.name] = topic

    def forget(self, log: Log) -> None:
        """A room is empty, or a session is over."""
        if log.name != INBOX:
            self._forgotten.append(log)
            self._topics.pop(log.name, None)

    def keep_names(self, session: Session) -> None:
        """The names of this session, which has a key, are its own, also after a restart."""
        name = next(iter(session.names))
        self._owners[name] = (name, session.key, " ".join(session.names.values()))

    def free_names(self, session: Session) -> None:
        """They are free."""
        self._owners[next(iter(session.names))] = None

    def commit(self) -> None:
        """Write what there is to be written.

        Raises:
            JournalError: it cannot be written.
        """
        if not self._lines and not self._forgotten and not self._owners:
            return
        try:
            self._write()
        except sqlite3.Error as error:
            if self._is_full or not _is_full(error):
                raise self._fault("cannot be written", error) from error
            log.error("the disk is full: nothing new is accepted until %s has room again", self._path)
            self._is_full = True
            self._give_ballast_up()
            self.commit()
            return
        self._since_checkpoint += len(self._lines)
        self._lines, self._trimmed, self._forgotten, self._topics, self._owners = [], {}, [], {}, {}
        if self._since_checkpoint >= CHECKPOINT_LINES and (self._checkpoint is None or not self._checkpoint.is_alive()):
            self._since_checkpoint = 0
            self._begin_checkpoint()

    def close(self) -> None:
        """Write the rest and free everything.

        Raises:
            JournalError: the rest cannot be written; everything is freed all the same.
        """
        atexit.unregister(self.close)
        try:
            self.commit()
        finally:
            if self._checkpoint is not None:
                self._checkpoint.join()
            self._give_ballast_up()
            with contextlib.suppress(sqlite3.Error):
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                self._database.execute("UPDATE fact SET value = 0 WHERE name = 'open'")
            self._database.close()
            self._lock.close()

    def _acquire(self) -> IO[bytes]:
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            raise JournalError(f"The journal {self._path} cannot be used: it is no plain file.")
        try:
            file = open(self._path, "ab", opener=private)  # noqa: SIM115
        except OSError as error:
            raise JournalError(f"The journal {self._path} cannot be used: {reason_of(error)}.") from error
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
        if not tables and not found and self._may_begin:
            database.execute("PRAGMA journal_mode = WAL")
            header = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            database.executescript(f"BEGIN; {_TABLES} {header}")
            facts = {"history": secrets.token_urlsafe(12), "last_seq": 0}
            database.executemany("INSERT INTO fact VALUES (?, ?)", facts.items())
            database.execute("COMMIT")
        elif found != APPLICATION_ID or version != VERSION:
            raise JournalError(f"{self._path} is not a journal of this chat.")
        else:
            (fault,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if fault != "ok":
                raise self._fault("is damaged", sqlite3.DatabaseError(fault.splitlines()[-1].rstrip(".")))
        if self._may_begin:
            database.execute(_OWNERS)  # of a journal that is older
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")

    def _note_open(self, had_wal: bool) -> None:
        """Note in the file itself that it is in use, until it is closed in order.

        Who finds that note should find the log of writes too, with the last lines in it.
        """
        noted = self._database.execute("SELECT value FROM fact WHERE name = 'open'").fetchone()
        if noted is not None and noted[0] and not had_wal:
            raise JournalError(
                f"The journal {self._path} lacks its last lines: it was not closed in order, and {self._path}-wal, "
                f"which has them, is not there. Put that beside it, or move {self._path} away to begin anew."
            )
        self._database.execute("INSERT OR REPLACE INTO fact VALUES ('open', 1)")
        self._database.execute("PRAGMA wal_checkpoint(FULL)")

    def _read_lines(self) -> dict[str, tuple[int, list[bytes]]]:
        """For each room the number of its first line, and its lines."""
        lines: dict[str, tuple[int, list[bytes]]] = {}
        for room, seq, data in self._database.execute("SELECT room, seq, data FROM line ORDER BY room, seq"):
            if room in ("", INBOX) or not _is_line(room, seq, data):
                raise self._damage(f"the row of line {seq} of {room} holds something else")
            first_seq, found = lines.setdefault(room, (seq, []))
            if seq != first_seq + len(found):
                raise self._damage(f"line {first_seq + len(found)} of {room} is missing")
            found.append(data)
        return lines

    def _read_owners(self) -> list[tuple[str, list[str]]]:
        """For each hash of a key the names of who has it."""
        owners: list[tuple[str, list[str]]] = []
        if not self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'owner'").fetchone():
            return owners
        seen: set[str] = set()
        for name, key, nicks in self._database.execute("SELECT name, key, nicks FROM owner"):
            if not _is_owner(name, key, nicks):
                raise self._damage(f"the row of who is called {name} holds something else")
            owners.append((key, nicks.split(" ")))
            for folded in map(fold, owners[-1][1]):
                if folded in seen:
                    raise self._damage(f"two are called {folded}")
                seen.add(folded)
        return owners

    def _take_ballast(self) -> bool:
        """Keep some of the disk free for what has been accepted; whether there is as much."""
        try:
            with open(f"{self._path}-ballast", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
        except OSError:
            self._give_ballast_up()
            return False
        return True

    def _give_ballast_up(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._path}-ballast")

    def _write(self) -> None:
        execute = self._database.execute
        if self._database.in_transaction:  # one that failed
            execute("ROLLBACK")
        execute("BEGIN")
        self._database.executemany("INSERT INTO line VALUES (?, ?, ?)", self._lines)
        for room, first_seq in self._trimmed.items():
            execute("DELETE FROM line WHERE room = ? AND seq < ?", (room, first_seq))
        for log in self._forgotten:
            execute("DELETE FROM line WHERE room = ? AND seq <= ?", (log.name, log.last_seq))
            execute("UPDATE fact SET value = max(value, ?) WHERE name = 'last_seq'", (log.last_seq,))
            execute("DELETE FROM fact WHERE name = ?", (f"topic {log.name}",))
            self._first_seq.pop(log.name, None)
        for room, topic in self._topics.items():
            execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (f"topic {room}", topic))
        self._database.executemany("DELETE FROM owner WHERE name = ?", [(name,) for name in self._owners])
        self._database.executemany("INSERT INTO owner VALUES (?, ?, ?)", filter(None, self._owners.values()))
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

    def _fact(self, name: str) -> object:
        row = self._database.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise self._damage(f"its {name} is missing")
        fact: object = row[0]
        return fact

    def _damage(self, what: str) -> JournalError:
        return JournalError(
            f"The journal {self._path} is damaged: {brief(visible(what))}. Restore it, or move it away to begin anew."
        )

    def _fault(self, what: str, error: Exception) -> JournalError:
        reason = str(error) or "SQLite runs out of memory over it"
        return JournalError(f"The journal {self._path} {what}: {brief(visible(reason))}.")


def _is_full(error: sqlite3.Error) -> bool:
    """Whether the disk had no room for what was written."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL or error.sqlite_errorcode == sqlite3.SQLITE_IOERR_WRITE


def _is_line(room: object, seq: object, data: object) -> bool:
    """Whether a row is what :meth:`Journal.keep` wrote."""
    if not isinstance(room, str) or not isinstance(seq, int) or not isinstance(data, bytes) or data[-1:] != b"\n":
        return False
    try:
        message = ROOM_LINE.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return (message.log, message.seq) == (room, seq) and seq <= MAX_SEQ


def _is_owner(name: object, key: object, nicks: object) -> bool:
    """Whether a row is what :meth:`Journal.keep_names` wrote."""
    if not isinstance(key, str) or not re.fullmatch("[0-9a-f]{64}", key) or not isinstance(nicks, str):
        return False
    names = nicks.split(" ")
    is_good = len(names) <= MAX_NAMES and all(each.isprintable() and 1 <= len(each) <= LONGEST_CHARS for each in names)
    return is_good and fold(names[0]) == name
