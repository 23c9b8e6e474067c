"""What a journal keeps, and finds in a file that somebody altered. No server, so no real time."""

import contextlib
import itertools
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sinks import Pipe

from chat.protocol.messages import Bye, Down, Hello, Join, Leave, Message, Nick, Refused, Say, Tell, Welcome
from chat.server.hub import Hub
from chat.server.journal import TRIM_LINES, Journal, JournalError
from chat.server.rooms import Rooms

KEY, OTHER_KEY = "a secret of her own", "a secret of another"


@pytest.mark.parametrize(
    ("change", "damage"),
    [
        ("UPDATE line SET data = 7 WHERE seq = 3", "the row of line 3 of lobby holds something else"),
        ("UPDATE line SET data = x'00ff' WHERE seq = 3", "the row of line 3 of lobby holds something else"),
        ("UPDATE line SET data = 'text' WHERE seq = 3", "the row of line 3 of lobby holds something else"),
        ("UPDATE line SET data = (SELECT data FROM line WHERE seq = 4) WHERE seq = 3", "the row of line 3 of lobby"),
        ("UPDATE line SET room = 'tea' WHERE seq = 3", "line 3 of lobby is missing"),
        ("UPDATE line SET seq = 'x' WHERE seq = 5", "line 5 of lobby is missing"),
        ("UPDATE line SET seq = 'x' WHERE seq = 8", "the row of line x of lobby holds something else"),
        ("UPDATE line SET seq = -4 WHERE seq = 1", "the row of line -4 of lobby holds something else"),
        ("DELETE FROM line WHERE seq = 2", "line 2 of lobby is missing"),
        ("DELETE FROM fact WHERE name = 'history'", "its history is missing"),
        ("DELETE FROM fact WHERE name = 'last_seq'", "its last_seq is missing"),
        ("UPDATE fact SET value = 'many' WHERE name = 'last_seq'", "its last_seq is 'many'"),
        ("UPDATE fact SET value = 1 << 60 WHERE name = 'last_seq'", f"its last_seq is {1 << 60}"),
        ("UPDATE owner SET key = 'ff'", "the row of who is called zoe holds something else"),
        ("UPDATE owner SET key = 7", "the row of who is called zoe holds something else"),
        ("UPDATE owner SET nicks = ''", "the row of who is called zoe holds something else"),
        ("UPDATE owner SET nicks = x'00'", "the row of who is called zoe holds something else"),
        ("UPDATE owner SET nicks = 'Zoe  Zora'", "the row of who is called zoe holds something else"),
        ("UPDATE owner SET nicks = 'Zoe a b c d e f g h'", "the row of who is called zoe holds something else"),
        ("UPDATE owner SET nicks = 'Zora Zoe'", "the row of who is called zoe holds something else"),
        ("UPDATE owner SET name = '\x1b'", "the row of who is called \\x1b holds something else"),
        ("INSERT INTO owner SELECT 'zora', key, 'Zora' FROM owner", "two are called zora"),
        ("ALTER TABLE owner DROP COLUMN key", "no such column: key"),
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
    zoe = Pipe(hub.delivery).connection
    for message in (Hello("Zoe", KEY), Nick("Zora")):
        hub.receive(zoe, message)
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
    hub.forget_restored()
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


class Restarted:
    """A hub on a journal, which a restart replaces by the next one. Answers are those of the last connection."""

    def __init__(self, file: Path) -> None:
        self._tokens = itertools.count()
        self._file = file
        self._begin()

    def _begin(self) -> None:
        self.journal = Journal(str(self._file))
        rooms = small_rooms()
        owners = self.journal.restore(rooms)
        self.hub = Hub(lambda: f"token{next(self._tokens)}", rooms=rooms, keeper=self.journal)
        self.hub.reserve(owners)

    def restart(self) -> None:
        self.journal.close()
        self._begin()

    def connect(self, *messages: Message) -> Pipe:
        pipe = Pipe(self.hub.delivery)
        for message in messages:
            self.hub.receive(pipe.connection, message)
        return pipe

    def answer(self, *messages: Message) -> Down:
        """The first one to these, over a connection of their own."""
        pipe = self.connect(*messages)
        self.hub.delivery.flush()
        return pipe.messages()[0]

    def refusal(self, *messages: Message) -> str:
        answer = self.answer(*messages)
        assert isinstance(answer, Refused), answer
        return f"{answer.code}: {answer.reason}"

    def rows(self) -> list[str]:
        self.journal.commit()
        with contextlib.closing(sqlite3.connect(self._file)) as database:
            return [nicks for (nicks,) in database.execute("SELECT nicks FROM owner ORDER BY nicks")]


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[Restarted]:
    restarted = Restarted(tmp_path / "journal")
    yield restarted
    restarted.journal.close()


def kept(nick: str) -> str:
    whose = "somebody who was here before the server restarted"
    return f"nick_in_use: {nick} is, or looks like, a name that is kept for {whose}."


def test_after_a_restart_a_name_is_for_who_has_its_key(restarted: Restarted) -> None:
    restarted.connect(Hello("ana", KEY), Nick("Anna"))
    restarted.restart()
    assert restarted.hub.nicks == []
    for nick in ("ana", "ANA", "anna", "аna"):
        assert restarted.refusal(Hello(nick)) == kept(nick)
    mallory = restarted.connect(Hello("ana", OTHER_KEY), Hello("mallory", OTHER_KEY), Nick("Anna"))
    assert mallory.connection.wrong_secrets == 1
    assert len(restarted.hub.guesses._wrong) == 1
    assert restarted.hub.nicks == ["mallory"]
    ben = restarted.connect(Hello("ben"), Tell("ana", "the door code is 4711"))
    assert b"Nobody here is called ana." in ben.flush()
    ana = restarted.connect(Hello("Anna", KEY))
    assert restarted.hub.nicks == ["mallory", "ben", "Anna"]
    restarted.hub.receive(ben.connection, Tell("ana", "the door code is 4711"))
    assert b"4711" in ana.flush()
    assert b"4711" not in mallory.flush()
    restarted.hub.forget_restored()
    assert restarted.refusal(Hello("ana")) == "nick_in_use: Somebody here was called ana before."
    assert isinstance(restarted.answer(Hello("anna", KEY)), Welcome), "the answer to the first may be lost"
    assert restarted.rows() == ["ana Anna", "mallory"]


def test_a_name_to_which_nobody_came_back_is_free_again(restarted: Restarted) -> None:
    restarted.connect(Hello("ana", KEY))
    for _ in range(2):
        restarted.restart()
        assert restarted.refusal(Hello("ana", OTHER_KEY)) == kept("ana")
    restarted.hub.forget_restored()
    assert restarted.rows() == []
    assert isinstance(restarted.answer(Hello("аna")), Welcome)


def test_who_left_or_has_no_key_is_not_kept(restarted: Restarted) -> None:
    restarted.connect(Hello("ana", KEY), Bye())
    restarted.connect(Hello("ben"))
    for number in range(100):
        gone = restarted.connect(Hello(f"nick{number}", KEY))
        restarted.hub.disconnect(gone.connection, "reset", keep_until_ns=number)
    assert len(restarted.rows()) == 100, "some may come back"
    restarted.hub.expire(98)
    assert restarted.rows() == ["nick99"]
    restarted.hub.close("The server is shutting down.")
    assert restarted.rows() == [], "told to go, and not to come back"


def test_a_server_that_means_to_come_back_keeps_names(restarted: Restarted) -> None:
    restarted.connect(Hello("ana", KEY))
    restarted.hub.close("The server is restarting.", 1.0)
    restarted.restart()
    assert restarted.refusal(Hello("ana")) == kept("ana")


def test_two_sessions_of_one_key_stay_two(restarted: Restarted) -> None:
    for _ in range(2):
        restarted.connect(Hello("ana", KEY), Nick("Anna"))
        restarted.connect(Hello("ben", KEY))
        assert restarted.hub.nicks == ["Anna", "ben"]
        assert restarted.rows() == ["ana Anna", "ben"]
        restarted.restart()


def test_names_are_written_with_the_lines_of_the_turn(restarted: Restarted) -> None:
    """And in a turn in which nobody comes or goes, nothing is."""
    statements: list[str] = []
    restarted.journal._database.set_trace_callback(statements.append)
    for number in range(50):
        restarted.connect(Hello(f"ana{number}", KEY))
    for _ in range(2):
        restarted.journal.commit()
        assert [each for each in statements if each == "COMMIT"] == ["COMMIT"]


def test_of_two_that_look_alike_by_newer_tables_one_is_kept_at_a_time(restarted: Restarted, tmp_path: Path) -> None:
    restarted.connect(Hello("ana", KEY))
    restarted.journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal", isolation_level=None)) as database:
        database.execute("INSERT INTO owner SELECT 'аna', key, 'аna' FROM owner")
    restarted._begin()
    for rows in (["аna"], []):
        restarted.hub.forget_restored()
        assert restarted.rows() == rows
        restarted.restart()


def test_a_journal_from_before_there_were_owners_is_used(restarted: Restarted, tmp_path: Path) -> None:
    restarted.connect(Hello("ben"), Say("hot"))
    restarted.journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal", isolation_level=None)) as database:
        database.execute("DROP TABLE owner")
    restarted._begin()
    assert restarted.hub.rooms.lobby.log.last_seq == 2
    restarted.connect(Hello("ana", KEY))
    restarted.restart()
    assert restarted.refusal(Hello("ana")) == kept("ana")


def test_a_check_changes_no_older_journal(tmp_path: Path) -> None:
    file = str(tmp_path / "j")
    Journal(file).close()
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("DROP TABLE owner")
    with contextlib.closing(Journal(file, may_begin=False)) as journal:
        assert journal.restore(Rooms(name_chars=32)) == []
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'owner'").fetchall()
