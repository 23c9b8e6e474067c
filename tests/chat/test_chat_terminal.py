"""What people expect of a chat client on a terminal: keys, status bar, pasted lines, commands of their own."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chat_helpers import SECOND, RawClient, ServerProcess, server_process
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.utils import get_cwidth
from terminal_helpers import TerminalClient
from test_chat_shelf import Person

from chat.console.commands import COMMANDS, named, unquoted
from chat.console.terminal import Terminal
from chat.console.wrap import wrapped
from chat.net.loop import Loop
from chat.protocol.limits import Limits
from chat.words import visible

pytestmark = pytest.mark.realtime("chat")


def test_lines_break_between_words() -> None:
    def plain(text: str, width: int) -> str:
        return "".join(part for _, part in wrapped([("bold", text[:3]), ("", text[3:])], width, 2))

    assert plain("one two three four", 9) == "one two\n  three\n  four"
    assert plain("one two", 7) == "one two"
    assert plain("漢字 漢字", 6) == "漢字\n  漢字"
    assert plain("http://a/very/long/address", 9) == "http://a/\n  very/lo\n  ng/addr\n  ess"
    assert plain("see http://a/b", 7) == "see\n  http:\n  //a/b"
    assert plain("abc", 1) == "a\nb\nc"
    assert wrapped([("bold", "ab"), ("", "c d")], 80, 2) == [("bold", "ab"), ("", "c d")]


@given(
    st.lists(st.sampled_from([" ", "\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}", "a", "漢", "\u0301", "\u200d"])),
    st.integers(3, 12),
    st.integers(0, 6),
)
def test_no_text_reaches_the_left_edge_again(chars: list[str], width: int, indent: int) -> None:
    """There a line begins with its time and who says it, which nobody else may write."""
    text = "".join(chars)
    broken = "".join(part for _, part in wrapped([("", text)], width, indent))
    first, *others = broken.split("\n")
    margin = " " * min(indent, width - 2)
    assert all(row.startswith(margin) for row in others)
    assert all(get_cwidth(row) <= width for row in (first, *others))
    rest = first + "".join(row.removeprefix(margin) for row in others)
    assert rest.replace(" ", "") == text.replace(" ", ""), "nothing but spaces at breaks is left out"


def test_what_is_shown_of_a_line_has_an_end() -> None:
    loop = Loop()
    terminal = Terminal(loop, colours=False)
    longest_text = visible("\x7f" * Limits().text_bytes)
    terminal.show(f"ben: {longest_text}", speaker="ben")
    terminal.show("x" * 1_000_000)
    shown = ["".join(text for _, text in line[1:]) for line in terminal._lines]
    assert shown == [f"ben: {longest_text}", "x" * 65_536 + "…"]
    loop.close()


def test_who_looks_back_for_long_finds_the_newest_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, printed = Loop(), io.StringIO()
    terminal = Terminal(loop, colours=False)
    monkeypatch.setattr(terminal, "_looking_back", object())
    for number in range(10_003):
        terminal.show(f"line {number}")
        loop.run_once(0)
    terminal._looking_back = None
    terminal.show("line 10003")
    with create_app_session(output=PlainTextOutput(printed)):
        loop.run_once(0)
    first, *others = printed.getvalue().splitlines()
    assert first == "── 5 lines left out ──"
    assert [line[len("00:00 ") :] for line in others] == [f"line {number}" for number in range(5, 10_004)]
    loop.close()


def test_commands_by_their_beginning() -> None:
    assert [one.name for one in named("/STATS")] == ["/stats"]
    assert [one.name for one in named("/q")] == ["/quit"]
    assert [one.name for one in named("/re")] == ["/reject", "/reconnect"]
    assert [one.name for one in named("/me")] == ["/me"]
    assert named("/nope") == []
    for command in COMMANDS:
        assert named(command.name) == [command]


def test_paths_in_quotes() -> None:
    assert [unquoted(text) for text in ("'a b'", '"a b"', "a b", "'a", "' '")] == ["a b", "a b", "a b", "'a", " "]


def test_control_c_throws_away_a_half_typed_line_first(server: ServerProcess) -> None:
    with RawClient(server.address, "ben") as ben:
        client = TerminalClient("ana", server, "--no-colour")
        client.type("never sa")
        client.until("never sa")
        client.type("\x03said\r")
        assert ben.until("said")["text"] == "said"
        client.until("ana: said")
        client.type("\x03")
        assert client.end() == 0


def test_pasted_lines_are_messages_of_their_own_after_a_question(server: ServerProcess) -> None:
    with RawClient(server.address, "ben") as ben:
        client = TerminalClient("ana", server, "--no-colour")
        client.type("\x1b[200~one\ntwo\x1b[201~\r")
        client.until("Enter these 2 lines one by one?")
        client.type("n\r")
        client.until("the lines were thrown away")
        client.type("\x1b[200~three\nfour\x1b[201~\r")
        client.until("Enter these 2 lines one by one?", after="thrown away")
        client.type("y\r")
        assert [ben.until("said")["text"] for _ in range(2)] == ["three", "four"]
        client.type("\x1b[200~/exit\nnever said\x1b[201~\r")
        client.until("Enter these 2 lines one by one?", after="ana: four")
        client.type("y\r")
        assert client.end() == 0
        assert "said" not in [line["type"] for line in ben.sync()]


def test_what_is_said_at_a_question_stands_above_it(server: ServerProcess) -> None:
    with RawClient(server.address, "ben") as ben:
        client = TerminalClient("ana", server, "--no-colour")
        client.type("\x1b[200~one\ntwo\x1b[201~\r")
        client.until_shown("Enter these 2 lines one by one?")
        ben.send(type="say", text="meanwhile")
        client.until_shown("ben: meanwhile")
        client.type("y")
        client.until_shown("[y/N] y")
        rows = [row.rstrip() for row in client.display.display if "meanwhile" in row or "Enter" in row]
        assert [row[len("00:00 ") :] for row in rows[:1]] == ["ben: meanwhile"]
        assert rows[1:] == ["Enter these 2 lines one by one? [y/N] y"]
        client.type("\r")
        client.until_shown("ana: two")
        client.type("\x04")
        assert client.end() == 0


def test_page_up_shows_what_was_said_before(server: ServerProcess) -> None:
    with RawClient(server.address, "ben") as ben:
        client = TerminalClient("ana", server, "--no-colour")
        for number in range(100):
            ben.send(type="say", text=f"line {number}")
        client.until("line 99")
        client.type("\x1b[5~")
        client.until_shown("more lines below; PageDown goes there, any other key back to the chat")
        ben.send(type="say", text="meanwhile")
        ben.until("said", text="meanwhile")
        client.type("q")
        client.until("ben: meanwhile")
        client.type("still here\r")
        client.until("ana: still here")
        client.type("\x04")
        assert client.end() == 0
        assert "Traceback" not in client.screen


def test_a_byte_that_is_not_utf_8_is_one_sentence(server: ServerProcess) -> None:
    client = TerminalClient("ana", server, "--no-colour")
    client.type(b"\xe4\r")
    client.until(r"! That cannot be sent: \udce4 in it is no character.")
    client.type("still here\r")
    client.until("ana: still here")
    client.type("\x04")
    assert client.end() == 0


def test_control_z_suspends(server: ServerProcess) -> None:
    client = TerminalClient("ana", server, "--no-colour")
    client.type("\x1a")
    _, status = os.waitpid(client.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    client.process.send_signal(signal.SIGCONT)
    client.type("back\r")
    client.until("ana: back")
    client.type("\x04")
    assert client.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", ["at the prompt", "at a question", "looking back"])
def test_a_signal_leaves_and_gives_the_terminal_back(server: ServerProcess, where: str, number: int) -> None:
    with RawClient(server.address, "ben") as ben:
        client = TerminalClient("ana", server, "--no-colour")
        client.until("2 here: ben, ana")
        if where == "at a question":
            client.type("\x1b[200~one\ntwo\x1b[201~\r")
            client.until("Enter these 2 lines one by one?")
        elif where == "looking back":
            client.type("\x1b[5~")
            client.until_shown("any other key back to the chat")
        client.process.send_signal(number)
        assert client.end() == 0
        assert ben.until("left")["reason"] == "said bye"
        assert not client.is_raw
        for mode in ("2004", "1049"):  # bracketed paste, the other screen
            assert client.screen.rfind(f"\x1b[?{mode}l") >= client.screen.rfind(f"\x1b[?{mode}h")
        assert "Traceback" not in client.screen


@pytest.mark.parametrize("where", ["at the prompt", "looking back"])
def test_who_has_no_terminal_any_more_is_gone(where: str) -> None:
    """Also while the server is away: it went on for ever, busy with sentences that it could not show."""
    with server_process() as server:
        client = TerminalClient("ana", server, "--no-colour")
        client.type("hello\r")
        client.until("ana: hello")
        if where == "looking back":
            client.type("\x1b[5~")
            client.until_shown("any other key back to the chat")
        server.process.kill()
        server.end()
        client.hang_up()
        assert client.process.wait(10 * SECOND) == 128 + signal.SIGHUP


def test_the_status_bar_counts_what_is_unread_elsewhere(server: ServerProcess) -> None:
    with RawClient(server.address, "ben") as ben:
        ben.send(type="join", room="tea")
        ben.until("member")
        client = TerminalClient("ana", server, "--mode", "redundant", "--no-colour")
        client.until_shown("secondary in use")
        client.type("/join tea\r")
        client.until("you are in tea")
        client.type("/JOIN lobby\r")
        client.until("* you speak in lobby now")
        ben.send(type="say", text="over here", room="tea")
        client.until("[tea]")
        client.until_shown("unread: tea 1")
        client.type("/j tea\r")
        client.until("* you speak in tea now")
        client.type("/q\r")
        assert client.end() == 0


@pytest.mark.parametrize("nick", ["ana", "ana!"])
def test_the_bell_rings_only_for_us_and_only_if_wanted(server: ServerProcess, nick: str) -> None:
    with RawClient(server.address, "ben") as ben:
        for options, rings in ((["--bell"], True), ([], False)):
            client = TerminalClient(nick, server, "--no-colour", *options)
            ben.send(type="say", text="banana!")
            client.until("banana!")
            assert "\x07" not in client.screen
            ben.send(type="say", text=f"where is {nick.title()}?")
            client.until(f"is {nick.title()}?")
            client.type("/quit\r")
            assert client.end() == 0
            assert ("\x07" in client.screen) == rings
            ben.until("left")


def test_away_ignore_and_me_in_a_pipe(server: ServerProcess) -> None:
    with RawClient(server.address, "ben") as ben:
        ana = Person(server, "ana")
        ana.type("/me waves")
        ana.until("~ ana waves  (")
        assert ben.until("said")["text"] == "/me waves"
        ana.type("/away lunch")
        ana.until("* you are away: lunch")
        for _ in range(2):
            ben.send(type="tell", to="ana", text="psst")
        assert ben.until("told", **{"from": "ana"})["text"] == "(away: lunch)"
        ana.type("/away")
        ana.until("* you are back")
        ana.type("/ignore Ben")
        ana.until("* you ignore Ben; the same again ends it")

        def is_hidden(name: str) -> bool:
            ben.send(type="say", text=f"by {name}")
            ben.until("said", text=f"by {name}")
            ana.type("/ignore")
            return ana.until("* you ignore") == f"* you ignore {name}\n"

        assert is_hidden("Ben")
        ben.send(type="nick", nick="benno")
        ana.until("* ben is called benno now")
        assert is_hidden("benno"), "whatever he calls himself"
        ben.send(type="nick", nick="ben")
        ana.until("* benno is called ben now")
        ana.type("/ignore ben")
        ana.until("you no longer ignore ben")
        ben.send(type="say", text="/me is back")
        ana.until("~ ben is back")
        ana.type("/RE")
        ana.until("! /RE may be /reject, /reconnect.")
        ana.leave()
        told = [line for line in ben.sync() if line["type"] == "told" and line["from"] == "ana"]
        assert told == [], "once"


def test_tab_goes_into_folders(server: ServerProcess, tmp_path: Path) -> None:
    folder = tmp_path / "with spaces"
    folder.mkdir()
    (folder / "note.txt").write_text("psst")
    with RawClient(server.address, "ben") as ben:
        client = TerminalClient("ana", server, "--no-colour")
        client.until("ben")
        client.type(f"/send ben '{tmp_path}/wi\t")
        client.until("with spaces/")
        client.type("no\t'\r")
        assert ben.until("file_offered")["name"] == "note.txt"
        client.type("/quit\r")
        assert client.end() == 0


@pytest.mark.parametrize(
    "command",
    [
        "connect ana --port 99999",
        "serve --port 80000",
        "serve --grace -5",
        *(f"connect ana --{option}=" for option in ("ca", "history", "password-file", "record")),
        *(f"serve --port 0 --{option}=" for option in ("journal", "password-file", "tcp-info", "tls-cert", "tls-key")),
    ],
)
def test_what_an_option_cannot_be_is_a_usage_error(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chat", *command.split()],
        capture_output=True,
        text=True,
        timeout=10 * SECOND,
        check=False,
    )
    assert done.returncode == 2
    assert "expected" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
