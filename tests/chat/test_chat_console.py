"""The interactive client: what it shows, what it records, on a terminal and in a pipe."""

import csv
import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_helpers import SECOND, RawClient, ServerProcess, server_process
from terminal_helpers import TerminalClient

from chat.client.client import ChatClient
from chat.client.events import (
    Closed,
    Departed,
    Echoed,
    EchoMissed,
    Entered,
    Gap,
    PathDown,
    PathUp,
    PeerJoined,
    PeerLeft,
    Present,
    Received,
    Refused,
    Registered,
    Renamed,
    RoomList,
)
from chat.client.transcript import COLUMNS, Transcript
from chat.console.commands import kind_at
from chat.console.console import Console
from chat.console.display import describe
from chat.console.tally import Tally
from chat.console.terminal import IDLE_S, Terminal
from chat.net.loop import Loop
from chat.net.tcpinfo import TcpInfo
from chat.words import visible

pytestmark = pytest.mark.realtime("chat")

PRIVATE_ECHO = Echoed(1, "tell", 4, 0, 0, 1_500_000, 0, True, "primary", "ben", "hé!", "inbox", 1)
#: An escape sequence that sets a foreground colour.
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3|9)[0-7]m")
ECHO = Echoed(2, "say", 4, 0, 0, 2_500_000, 0, False, "secondary", None, "hé!", "lobby", 2)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é ☺ 漢字\u3000x", "plain é ☺ 漢字\u3000x"),
        ("\x1b[31m\x07\r\n\t\x7f", r"\x1b[31m\x07\r\n\t\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("a\u202eb\u2066c\u2028\u200b\ufeff", r"a\u202eb\u2066c\u2028\u200b\ufeff"),
        ("👩\u200d👧 می\u200cخواهم", "👩\u200d👧 می\u200cخواهم"),
        ("\ue000\U000e0041", r"\ue000\U000e0041"),
        ("a\u3164b\u2800\uffa0", r"a\u3164b\u2800\uffa0"),
    ],
)
def test_nothing_acts_on_the_terminal(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Registered("ana"), "* you are ana; /help lists the commands"),
        (ECHO, "ana: hé!  (2.5 ms)"),
        (PRIVATE_ECHO, "you → ben: hé!  (1.5 ms)"),
        (Received("say", "ben", None, "\x1b", None, "lobby", 1, 0, 0, True, "primary"), r"ben: \x1b"),
        (Received("say", "ben", None, "hi", None, "tea", 1, 0, 0, True, "primary"), "[tea] ben: hi"),
        (Received("tell", "ben", "ana", "hi", None, "inbox", 1, 0, 0, True, "primary"), "ben → you: hi"),
        (PeerJoined("ben"), "* ben joined"),
        (PeerJoined("ben", "tea"), "* ben joined tea"),
        (PeerLeft("ben", "reset"), "* ben left (reset)"),
        (PeerLeft("ben", "left the room", "tea"), "* ben left tea"),
        (Renamed("ben", "\x1bBen", "lobby", own=False), r"* ben is called \x1bBen now"),
        (Renamed("ben", "Ben", "tea", own=False), None),
        (Renamed("ana", "Ana", "lobby", own=True), "* you are called Ana now"),
        (Entered("tea"), "* you are in tea"),
        (Departed("tea"), "* you left tea"),
        (RoomList({"lobby": 3, "tea": 1}), "* 2 rooms: lobby (3), tea (1)"),
        (Present(["ben"], "tea"), "* 1 in tea: ben"),
        (EchoMissed(1), "* a message of yours was accepted, but not shown: it was among what was dropped"),
        (Present(["ana", "ben"]), "* 2 here: ana, ben"),
        (Refused(1, "x", "No.\x1b"), r"! No.\x1b"),
        (Gap("lobby", 3), "! 3 lines were dropped on the way to you"),
        (PathUp("primary"), None),
        (PathUp("secondary"), "* second connection open"),
        (PathDown("primary", "It broke."), "! primary connection: It broke."),
        (Closed("left", ()), None),
    ],
)
def test_lines(event: object, line: str | None) -> None:
    assert describe(event, "ana") == line  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("", "NICK"),
        ("hello a", "NICK"),
        ("//join", "NICK"),
        ("/j", "COMMAND"),
        ("/join ", "ROOM"),
        ("/leave te", "ROOM"),
        ("/msg b", "NICK"),
        ("/msg ben hello a", "NICK"),
        ("/stats x", ""),
        ("/nope x", ""),
    ],
)
def test_what_is_being_typed(line: str, kind: str) -> None:
    assert kind_at(line) == kind


def test_what_came_while_nobody_looked_is_marked() -> None:
    loop = Loop()
    terminal = Terminal(loop, colours=False)
    terminal.show("ben: one", speaker="ben")
    terminal._touched_s -= IDLE_S + 1
    terminal.show("* cem joined")
    terminal.show("ben: two", speaker="ben")
    terminal.show("ben: three", speaker="ben")
    shown = [re.sub(r"\d\d:\d\d ", "", "".join(text for _, text in line)) for line in terminal._lines]
    assert shown == ["ben: one", "* cem joined", "── new ──", "ben: two", "ben: three"]
    assert terminal._unread == 2
    terminal._touch()
    terminal.show("ben: four", speaker="ben")
    assert terminal._unread == 0
    assert {style for line in terminal._lines for style, _ in line} == {""}
    loop.close()


def test_a_list_of_rooms_that_was_lost_with_its_connection_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, lines = Loop(), list[str]()
    monkeypatch.setattr(ChatClient, "list_rooms", lambda _: None)
    console = Console(loop, "ana", ("127.0.0.1", 1), None, "single", show=lambda line, *_, **__: lines.append(line))
    console._event(Registered("ana"))
    console.learn_rooms()
    console._event(RoomList({"lobby": 1}))
    assert len(lines) == 1, "what only completion wants is not shown"
    console.learn_rooms()
    console._event(PathDown("primary", "It broke."))
    console._event(RoomList({"lobby": 2}))
    assert lines[-1] == "* 1 room: lobby (2)"
    console.client.close()
    loop.close()


def test_tally() -> None:
    tally = Tally()
    assert tally.report({}) == ["no message has come back yet"]
    for time_ms in [*range(1, 100), 1000]:
        tally.add("primary", float(time_ms))
    tally.add("secondary", 5.0)
    assert repr(tally) == "<Tally of 101>"
    assert (tally.percentile_ms(50), tally.percentile_ms(99), tally.percentile_ms(100)) == (50.0, 99.0, 1000.0)
    assert tally.report({"primary": TcpInfo(rtt_us=1500, total_retrans=2), "other": TcpInfo()}) == [
        "101 messages, response time in ms: average 59.0, minimum 1.0, maximum 1000.0, p50 50.0, p99 99.0",
        "primary: rtt 1.5 ms, jitter 57.2 ms, retransmissions 2",
        "other: rtt unknown, jitter unknown, retransmissions unknown",
    ]


def test_transcript() -> None:
    file = io.StringIO()
    transcript = Transcript(file)
    transcript.add("ana", PRIVATE_ECHO)
    transcript.add("ana", Received("say", "ben", None, "hé", 3, "lobby", 1, time.monotonic_ns(), 0, True, "secondary"))
    own, other = csv.DictReader(file.getvalue().splitlines())
    assert tuple(own) == COLUMNS
    assert own["response_time_ms"] == "1.5"
    assert (own["from"], own["to"], own["kind"], own["text_bytes"]) == ("ana", "ben", "tell", "4")
    assert (other["from"], other["to"], other["response_time_ms"], other["path"]) == ("ben", "", "", "secondary")
    assert abs(float(other["time_s"]) - time.time()) < 5


def run(*options: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chat", "connect", *options]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=10 * SECOND, check=False)


LINES = (
    "/who\n/who x\n/stats x\n/nope\n/msg\n/msg zoe hi\n/msg Ana psst\n/help\n\nhello \x1b[31m wörld\n//slash\n/stats"
)


@pytest.mark.parametrize("source", ["pipe", "file"])
@pytest.mark.parametrize("mode", ["single", "standby", "redundant"])
def test_in_a_pipe(server: ServerProcess, tmp_path: Path, source: str, mode: str) -> None:
    """Plain lines in and out; at the end of input it leaves, after its messages have come back."""
    record = tmp_path / "messages.csv"
    typed = tmp_path / "typed"
    typed.write_text(LINES)
    command = [sys.executable, "-m", "chat", "connect", "Ana", "--port", str(server.address[1])]
    command += ["--mode", mode, "--record", str(record)]
    with typed.open() as file:
        given = {"stdin": file} if source == "file" else {"input": LINES}
        done = subprocess.run(command, capture_output=True, text=True, timeout=10 * SECOND, check=False, **given)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "* you are Ana; /help lists the commands"
    assert "* 1 here: Ana" in lines
    assert "! There is no room x." in lines
    assert "! /stats takes no argument." in lines
    assert "! There is no command /nope; /help lists them all." in lines
    assert "! Usage: /msg NICK TEXT" in lines
    assert "! Nobody here is called zoe." in lines
    assert "/exit            leave the chat; so do Ctrl-D and, on an empty line, Ctrl-C" in lines
    for text in ("you → Ana: psst  (", r"Ana: hello \x1b[31m wörld  (", "Ana: /slash  ("):
        assert any(line.startswith(text) for line in lines), text
    with record.open() as recorded:
        rows = list(csv.DictReader(recorded))
    assert [row["text_bytes"] for row in rows if row["kind"] == "say"] == ["18", "6"]
    assert all(float(row["response_time_ms"]) > 0 for row in rows)


@pytest.mark.parametrize("mode", ["single", "redundant"])
def test_exit_ends_the_input(server: ServerProcess, mode: str) -> None:
    done = run("ana", "--port", str(server.address[1]), "--mode", mode, stdin="one\n/exit\ntwo\n")
    assert done.returncode == 0
    assert "ana: one  (" in done.stdout
    assert "two" not in done.stdout
    assert "\x1b" not in done.stdout


ROOM_LINES = """/join tea
hot
/join TEA
/join
/join inbox
cold
/who
/rooms
/nick Anna
/connections
/leave
/leave
/leave tea
bye"""


def test_rooms_and_names_in_a_pipe(server: ServerProcess) -> None:
    """What follows `/join` is said in that room, although the answer has not come yet."""
    with RawClient(server.address, "ben") as ben:
        ben.send(type="join", room="tea")
        ben.until("member")
        done = run("ana", "--port", str(server.address[1]), stdin=ROOM_LINES)
        assert ben.until("said", log="tea")["text"] == "hot"
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    said = [line.partition("  (")[0] for line in lines if ": " in line and not line.startswith(("*", "!"))]
    assert said == ["ana: hot", "ana: cold", "Anna: bye"]
    for line in (
        "* you are in tea",
        "! Usage: /join ROOM",
        "* 2 in tea: ben, ana",
        "* 2 rooms: lobby (2), tea (2)",
        "* you are called Anna now",
        "* you left tea",
        "! You cannot leave the lobby.",
        "! You are not in the room tea.",
    ):
        assert line in lines, line
    port = server.address[1]
    assert any(line.startswith(f"* primary to 127.0.0.1 port {port}: in use, rtt ") for line in lines)


@pytest.mark.parametrize("lines", ["0", "1001", "x", "²", "9" * 5_000])
def test_a_number_of_lines_that_cannot_be_is_one_sentence(server: ServerProcess, lines: str) -> None:
    done = run("ana", "--port", str(server.address[1]), stdin=f"/last {lines}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "! /last takes a number of lines, from 1 to 1000." in done.stdout.splitlines()


def test_what_cannot_be_done_is_one_sentence(server: ServerProcess, tmp_path: Path) -> None:
    port = str(server.address[1])
    with RawClient(server.address, "ana"):
        done = run("ANA", "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "chat-client: Somebody here is already called ana.\n"
    done = run("ana", "--port", "1")
    assert done.returncode == 1
    assert done.stderr == "chat-client: Cannot connect to 127.0.0.1 port 1: connection refused.\n"
    done = run("ana", "--port", port, "--record", str(tmp_path / "no" / "such.csv"))
    assert done.returncode == 1
    assert done.stderr.endswith("no/such.csv: no such file or directory.\n")
    done = run(os.fsdecode(b"\xff"), "--port", port)
    assert done.returncode == 1
    assert done.stderr == "chat-client: That cannot be sent: \\udcff in it is no character.\n"
    done = run("ana", "--secondary", "nonsense")
    assert done.returncode == 2
    assert "expected HOST:PORT, with a port from 1 to 65535, got 'nonsense'" in done.stderr


def test_secondary_means_redundant(server: ServerProcess) -> None:
    port = server.address[1]
    with RawClient(server.address, "ben") as ben:
        command = [sys.executable, "-m", "chat", "connect", "ana", "--port", str(port)]
        command += ["--secondary", f"localhost:{port}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stdout.readline().startswith("* you are ana")
            assert client.stdout.readline() == "* second connection open\n"
            client.send_signal(signal.SIGINT)
            assert ben.until("left")["reason"] == "said bye"
            client.communicate(timeout=5 * SECOND)
        assert client.returncode == 0


def test_the_server_goes() -> None:
    with server_process("127.0.0.1", "--back-in", "never") as server:
        command = [sys.executable, "-m", "chat", "connect", "ana", "--port", str(server.address[1])]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as client:
            assert client.stdout is not None
            assert client.stderr is not None
            client.stdout.readline()
            server.process.terminate()
            client.wait(timeout=5 * SECOND)
            error = client.stderr.read()
    assert (client.returncode, error) == (1, "chat-client: The server is shutting down.\n")


@pytest.mark.parametrize("ending", ["/exit\r", "\x04", "\x03"])
def test_on_a_terminal(server: ServerProcess, ending: str) -> None:
    """The input line stays while messages arrive; /exit, Ctrl-D and Ctrl-C leave alike."""
    with RawClient(server.address, "ben") as ben:
        client = TerminalClient("ana", server, "--mode", "redundant", "--no-colour")
        client.type("half a li")
        client.until("half a li")
        ben.send(type="say", text="hello \x1b[31m")
        client.until(r"ben: hello \x1b[31m")
        client.type("ne\r")
        assert ben.until("said", **{"from": "ana"})["text"] == "half a line"
        client.until("ana: half a line")
        client.type("/stats\r")
        client.until("retransmissions 0")
        client.type(ending)
        assert client.end() == 0
        assert "Traceback" not in client.screen
        assert not COLOUR.search(client.screen)
        assert ben.until("left")["reason"] == "said bye"


def test_completion_history_and_rooms_on_a_terminal(server: ServerProcess, tmp_path: Path) -> None:
    history = tmp_path / "history"
    with RawClient(server.address, "benjamin") as ben:
        client = TerminalClient("ana", server, "--history", str(history))
        client.until("2 here: benjamin, ana")
        client.type("/joi\t tea\r")
        client.until("you are in tea")
        client.until("tea>")
        ben.send(type="say", text="in the lobby")
        client.until("[lobby]")
        assert COLOUR.search(client.screen)
        client.type("/msg be\t psst\r")
        assert ben.until("told")["text"] == "psst"
        client.type("\x1b[A\r")
        assert ben.until("told")["text"] == "psst"
        client.type("/leave \t\t\x15/connections\r")
        client.until("in use, rtt")
        client.type("/exit\r")
        assert client.end() == 0
    assert "+/msg benjamin psst" in history.read_text()


def test_a_history_that_cannot_be_written_is_told_once(server: ServerProcess, tmp_path: Path) -> None:
    history = tmp_path / "history"
    client = TerminalClient("ana", server, "--no-colour", "--history", str(history))
    allowed = resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, (0, allowed[1]))  # a disk as good as full
    client.type("one\r")
    client.until("ana: one")
    client.type("two\r")
    client.until("ana: two")
    client.type("\x1b[A\x1b[A!\r")
    client.until("ana: one!")
    resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, allowed)
    client.type("three\r")
    client.until("ana: three")
    client.type("\x04")
    assert client.end() == 0
    assert client.screen.count("! What you type cannot be kept in") == 1
    assert "Traceback" not in client.screen
    assert [line for line in history.read_text().splitlines() if line.startswith("+")] == ["+three"]


def test_on_a_terminal_the_server_goes() -> None:
    with server_process("127.0.0.1", "--back-in", "never") as server:
        client = TerminalClient("ana", server)
        server.process.terminate()
        assert client.end() == 1
        assert "chat-client: The server is shutting down." in client.screen


def test_usage() -> None:
    command = [sys.executable, "-m", "chat", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * SECOND, check=False)
    assert done.returncode == 1
    assert done.stderr == "usage: python -m chat serve|connect [options]; each has --help\n"


def test_what_was_typed_and_said_is_for_its_owner_alone(server: ServerProcess, tmp_path: Path) -> None:
    files = tmp_path / "record.csv", tmp_path / "history"
    options = ["--record", str(files[0]), "--history", str(files[1]), "--port", str(server.address[1])]
    before = os.umask(0o022)
    try:
        subprocess.run(
            [sys.executable, "-m", "chat", "connect", "ana", *options], input="hello\n", text=True, timeout=60
        )
    finally:
        os.umask(before)
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]


def test_a_full_disk_costs_rows_of_the_record_and_not_the_chat(server: ServerProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chat", "connect", "ana", "--port", str(server.address[1])]
    said = [f"message {number}" for number in range(40)]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "sh", *command, "--record", str(tmp_path / "record.csv")],
        input="\n".join(said),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("! --record cannot be written: file too large; from here on rows are missing") == 1
    assert re.findall(r"ana: (message \d+)  ", done.stdout) == said
    done = subprocess.run([*command, "--record", "/dev/full"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "chat-client: Cannot write /dev/full: no space left on device.\n")
