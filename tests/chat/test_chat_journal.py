"""`chat-server --journal`: what was said survives the server, however it ends."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from chat_helpers import MODES, SECOND, Clients, RawClient, Relay, leave, server_process

from chat.client.client import Mode
from chat.client.events import Echoed, Gap, Received, StartedAnew

pytestmark = pytest.mark.realtime("chat")


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_server_is_gone_on_with(tmp_path: Path, clients: Clients, mode: Mode) -> None:
    """Ana hears nothing while much is said, then the server is killed: she gets all of it, once, from the next one."""
    journal = str(tmp_path / "journal")
    with server_process("127.0.0.1", "--journal", journal) as first:
        relay = Relay(clients.loop, first.address)
        ana = clients.join("ana", relay.address, mode=mode)
        ben = clients.join("ben", first.address)
        ana.join("tea")
        clients.until(lambda: ana.rooms == ["lobby", "tea"])
        ben.join("tea")
        clients.until(lambda: ben.rooms == ["lobby", "tea"])
        relay.drop_answers = True
        number = ana.say("was this accepted?")
        clients.until(lambda: clients.of(ben, Received))
        for each in range(200):
            ben.say(f"lobby {each}")
            ben.say(f"tea {each}", room="tea")
        clients.until(lambda: not ben.pending)
        first.process.kill()
        first.end()
    relay.drop_answers = False
    with server_process("127.0.0.1", "--journal", journal, port=first.address[1]):
        clients.until(lambda: clients.of(ana, StartedAnew) and clients.of(ben, StartedAnew))
        clients.until(lambda: ana.rooms == ben.rooms == ["lobby", "tea"])
        ben.say("again in the lobby")
        ben.say("again at tea", room="tea")
        clients.until(lambda: len(clients.of(ana, Received)) >= 402)
        for room in ("lobby", "tea"):
            heard = [event.text for event in clients.of(ana, Received) if event.log == room]
            again = {"lobby": "again in the lobby", "tea": "again at tea"}[room]
            assert heard == [*(f"{room} {each}" for each in range(200)), again]
        assert clients.of(ana, StartedAnew) == [StartedAnew("ana", (number,), missed=False)]
        assert [event.id for event in clients.of(ana, Echoed)] == [number]
        assert [event.text for event in clients.of(ben, Received)] == ["was this accepted?"]
        assert not clients.of(ana, Gap)
        assert not clients.of(ben, Gap)
        leave(clients, ana, ben)
    relay.close()


def test_without_a_journal_it_is_another_history(clients: Clients) -> None:
    with server_process() as first:
        ana = clients.join("ana", first.address)
        for _ in range(5):
            ana.say("x")
        clients.until(lambda: not ana.pending)
        first.process.kill()
        first.end()
    with server_process(port=first.address[1]):
        clients.until(lambda: clients.of(ana, StartedAnew))
        ana.say("y")
        clients.until(lambda: not ana.pending)
        assert clients.of(ana, StartedAnew) == [StartedAnew("ana", (), missed=True)]
        assert not clients.of(ana, Gap)
        leave(clients, ana)


ADVICE = "Restore it, or move it away to begin anew."


def refusal(journal: Path) -> str:
    command = [sys.executable, "-m", "chat", "serve", "--port", "0", "--journal", str(journal)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * SECOND, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("chat-server: ").rstrip().replace(str(journal), "FILE")


def test_what_is_no_journal_is_refused_in_one_sentence(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_text("This is a letter to my aunt, and long enough to be taken for the header of a database.\n" * 20)
    assert refusal(foreign) == "The journal FILE cannot be used: file is not a database."
    assert foreign.read_text().startswith("This is a letter")
    other = tmp_path / "other"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE aunt (name)")
    database.close()
    assert refusal(other) == "FILE is not a journal of this chat."
    assert refusal(tmp_path / "no" / "such" / "folder") == "The journal FILE cannot be used: no such file or directory."
    with server_process("127.0.0.1", "--journal", str(tmp_path / "journal")):
        assert refusal(tmp_path / "journal") == "The journal FILE is used by another server."


def test_a_damaged_journal_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    with server_process("127.0.0.1", "--journal", str(file)) as server, RawClient(server.address, "ana") as ana:
        for number in range(1, 301):
            ana.send(type="say", text="x" * 100, id=number)
        ana.until("said", id=300)
    whole = file.read_bytes()
    assert len(whole) > 30_000
    file.write_bytes(whole[:8192] + b"\x55" * 8192 + whole[16384:])
    assert refusal(file).startswith("The journal FILE ")
    file.write_bytes(whole)
    database = sqlite3.connect(file)
    database.execute("DELETE FROM line WHERE seq = 7")
    database.commit()
    database.close()
    assert refusal(file) == f"The journal FILE is damaged: line 7 of lobby is missing. {ADVICE}"


def test_a_journal_is_checked_without_a_server(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    command = [sys.executable, "-m", "chat", "serve", "--journal", str(file), "--check"]

    def check() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, capture_output=True, text=True, timeout=20 * SECOND, check=False)

    done = check()
    assert (done.returncode, done.stderr) == (2, f"chat-server: There is no journal {file}.\n")
    with server_process("127.0.0.1", "--journal", str(file)) as server, RawClient(server.address, "ana"):
        pass
    done = check()
    assert (done.returncode, done.stdout) == (0, f"The journal {file} adds up: 2 lines in 1 room.\n")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("UPDATE line SET data = 7 WHERE seq = 2")
    done = check()
    said = f"The journal {file} is damaged: the row of line 2 of lobby holds something else. {ADVICE}"
    assert (done.returncode, done.stderr) == (2, f"chat-server: {said}\n")


def test_a_check_makes_no_journal_of_what_is_none(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    command = [sys.executable, "-m", "chat", "serve", "--journal", str(file), "--check"]
    file.touch()  # as something else may have left it
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * SECOND)
    assert (done.returncode, done.stderr) == (2, f"chat-server: {file} is not a journal of this chat.\n")
    assert file.read_bytes() == b""
    file.unlink()
    os.mkfifo(file)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * SECOND)
    said = f"chat-server: The journal {file} cannot be used: it is no plain file.\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_log_of_writes_that_is_gone_is_missed(tmp_path: Path) -> None:
    """Whoever copies the file of a killed server alone would give numbers that were seen to other lines."""
    file = tmp_path / "journal"
    with server_process("127.0.0.1", "--journal", str(file)) as server, RawClient(server.address, "ana") as ana:
        ana.send(type="say", text="seen", id=1)
        ana.until("said", id=1)
        server.process.kill()
        server.end()
    writes = Path(f"{file}-wal").read_bytes()
    Path(f"{file}-wal").unlink()
    for _ in range(2):
        assert refusal(file) == (
            "The journal FILE lacks its last lines: it was not closed in order, and FILE-wal, which has them, is not "
            "there. Put that beside it, or move FILE away to begin anew."
        )
    Path(f"{file}-wal").write_bytes(writes)
    for _ in range(2):  # in order this time: nothing is missed after that
        with server_process("127.0.0.1", "--journal", str(file)) as server, RawClient(server.address, "ben") as ben:
            assert ben.welcome["cursors"]["lobby"] > 2
