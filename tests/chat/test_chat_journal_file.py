"""What a journal keeps, and finds in a file that somebody altered. No server, so no real time."""

import contextlib
import os
import re
import sqlite3
from pathlib import Path

import pytest
from sinks import Pipe

from chat.protocol.messages import Hello, Join, Leave, Say
from chat.server.hub import Hub
from chat.server.journal import TRIM_LINES, Journal, JournalError
from chat.server.rooms import Rooms


@pytest.mark.parametrize(
    ("change", "damage"),
    [
        ("UPDATE line SET data = 7 WHERE seq = 3", "the row of line 3 of lobby holds something else"),
        ("UPDATE line SET data = x'00ff' WHERE seq = 3", "the row of line 3 of lobby holds something else"),
        ("UPDATE line SET data = 'text' WHERE seq = 3", "the row of line 3 of lobby holds something else"),
        ("UPDATE line SET data = (SELECT data FROM line WHERE seq = 4) WHERE seq = 3", "the row of line 3 of lobby"),
        ("UPDATE line SET room = 'tea' WHERE seq = 3", "line 3 of lobby is missing"),
        ("UPDATE line SET seq = 'x' WHERE seq = 5", "line 5 of lobby is missing"),
        ("UPDATE line SET seq = 'x' WHERE seq = 6", "the row of line x of lobby holds something else"),
        ("UPDATE line SET seq = -4 WHERE seq = 1", "the row of line -4 of lobby holds something else"),
        ("DELETE FROM line WHERE seq = 2", "line 2 of lobby is missing"),
        ("DELETE FROM fact WHERE name = 'history'", "its history is missing"),
        ("DELETE FROM fact WHERE name = 'last_seq'", "its last_seq is missing"),
        ("UPDATE fact SET value = 'many' WHERE name = 'last_seq'", "its last_seq is 'many'"),
        ("UPDATE fact SET value = 1 << 60 WHERE name = 'last_seq'", f"its last_seq is {1 << 60}"),
        ("DROP TABLE line", "no such table: line"),
        ("DROP TABLE fact", "no such table: fact"),
    ],
)
def test_rows_that_somebody_altered_are_found(tmp_path: Path, change: str, damage: str) -> None:
    file = tmp_path / "journal"
    journal = Journal(str(file))
    hub = Hub(lambda: "token", keeper=journal)
    ana = Pipe(hub.delivery).connection
    for message in (Hello("ana"), *(Say(f"{number}") for number in range(5))):
        hub.receive(ana, message)
    journal.close()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute(change)
    for _ in range(2):  # that it was looked at changes nothing
        with pytest.raises(JournalError, match=re.escape(damage)):
            look_through(file)


def look_through(file: Path) -> None:
    with contextlib.closing(Journal(str(file))) as journal:
        journal.restore(Rooms(name_chars=32))


def small_rooms() -> Rooms:
    return Rooms(name_chars=32, lobby_lines=10, room_lines=10)


def test_the_file_is_bounded_like_the_logs(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    hub = Hub(lambda: "token", rooms=small_rooms(), keeper=journal)
    ana = Pipe(hub.delivery).connection
    hub.receive(ana, Hello("ana"))
    for number in range(3 * TRIM_LINES):
        hub.receive(ana, Say(f"{number}"))
        journal.commit()
    journal.close()
    (count,) = sqlite3.connect(tmp_path / "journal").execute("SELECT count(*) FROM line").fetchone()
    assert 10 <= count <= 10 + TRIM_LINES
    journal = Journal(str(tmp_path / "journal"))
    rooms = small_rooms()
    journal.restore(rooms)
    log = rooms.lobby.log
    assert (log.first_seq, log.last_seq) == (3 * TRIM_LINES + 1 - 9, 3 * TRIM_LINES + 1)
    assert b'"text":"1499"' in log.read(log.last_seq - 1, 1000).data
    journal.close()


def test_rooms_come_back_and_forgotten_ones_do_not(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    history = journal.history
    hub = Hub(lambda: "token", rooms=small_rooms(), keeper=journal)
    ana = Pipe(hub.delivery).connection
    for message in (
        Hello("ana"),
        Join("Tea"),
        Say("hot", room="tea"),
        Join("tin"),
        Say("cold", room="tin"),
        Leave("tin"),
    ):
        hub.receive(ana, message)
    journal.close()
    journal = Journal(str(tmp_path / "journal"))
    assert journal.history == history
    assert repr(journal) == f"<Journal {tmp_path / 'journal'}, 0 line(s) to be written>"
    rooms = small_rooms()
    journal.restore(rooms)
    assert [room.log.name for room in rooms] == ["lobby", "Tea"]
    hub = Hub(lambda: "token", rooms=rooms, keeper=journal, history=history)
    pipe = Pipe(hub.delivery)
    ben = pipe.connection
    for message in (Hello("ben"), Join("tea", cursor=1), Join("tin", cursor=0)):
        hub.receive(ben, message)
    sent = pipe.flush().decode()
    assert '{"type":"member","cursors":{"Tea":1}}' in sent
    assert '"text":"hot"' in sent
    assert '"text":"cold"' not in sent
    tin = rooms.find("tin")
    assert tin is not None
    assert tin.log.first_seq > 2, "numbers go on"
    hub.disconnect(ben, "reset")
    hub.forget_empty_rooms()
    assert [room.log.name for room in rooms] == ["lobby"]
    journal.close()
    assert sqlite3.connect(tmp_path / "journal").execute("SELECT DISTINCT room FROM line").fetchall() == [("lobby",)]


def test_nobody_else_reads_a_journal(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        journal = Journal(str(tmp_path / "j"))
        modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("j", "j-wal", "j-shm")]
        journal.close()
    finally:
        os.umask(before)
    assert modes == [0o600] * 3
