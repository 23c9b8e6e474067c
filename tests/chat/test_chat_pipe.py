"""The interactive client in a pipe: nothing that it is given vanishes, and its exit code says how it ended."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chat_helpers import SECOND, RawClient, ServerProcess
from hostile_helpers import WELCOME, liar, welcomed

from chat.client.outgoing import MAX_UNDER_WAY
from chat.console.console import Console
from chat.console.pipe import PATIENCE_S, Patience, Pipe
from chat.net.loop import Loop
from chat.net.transport import Address

pytestmark = pytest.mark.realtime("chat")


def command(address: Address) -> list[str]:
    return [sys.executable, "-m", "chat", "connect", "ana", "--port", str(address[1])]


@pytest.mark.parametrize("source", ["pipe", "file"])
def test_more_than_may_be_under_way_waits(server: ServerProcess, tmp_path: Path, source: str) -> None:
    texts = [str(number) for number in range(MAX_UNDER_WAY + 1_000)]
    typed = tmp_path / "typed"
    typed.write_text("\n".join(texts))
    with typed.open() as file:
        given = {"stdin": file} if source == "file" else {"input": typed.read_text()}
        done = subprocess.run(
            command(server.address), capture_output=True, text=True, timeout=30 * SECOND, check=False, **given
        )  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition("  (")[0] for line in done.stdout.splitlines()[1:]] == [f"ana: {text}" for text in texts]


class FewTurns(Loop):
    """Never waits, and ends the client after some turns."""

    console: Console
    turns = 0

    def run_once(self, timeout_s: float | None = None) -> None:
        super().run_once(0)
        self.turns += 1
        if self.turns == 50:
            self.console.client.close()


def test_what_cannot_be_handed_over_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes to us waits, rather than that we keep all of it."""
    output, into = os.pipe()
    size = fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 1 << 20)
    handler = signal.getsignal(signal.SIGINT)
    with socket.create_server(("127.0.0.1", 0)) as never_answers, open(output) as stdin, open(into, "wb") as writer:
        writer.write(b"a line\n" * (size // 7))
        writer.flush()
        monkeypatch.setattr(sys, "stdin", stdin)
        loop = FewTurns()
        pipe = Pipe(loop)
        loop.console = Console(loop, "ana", never_answers.getsockname(), None, "single", show=pipe.show)
        try:
            pipe.run(loop.console)
        finally:
            signal.signal(signal.SIGINT, handler)
            loop.close()
        unread = int.from_bytes(fcntl.ioctl(stdin, termios.FIONREAD, b"\0" * 4), sys.byteorder)
    assert unread == size // 7 * 7 - 65_536


def test_who_reads_no_more_ends_it_quietly(server: ServerProcess) -> None:
    """As SIGPIPE ends other programs."""
    with subprocess.Popen(
        command(server.address), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        client.stdout.readline()
        client.stdout.close()
        client.stdin.write("hello\n")
        client.stdin.flush()
        assert client.stderr.read() == ""
        client.wait(timeout=10 * SECOND)
    assert client.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("redirection", "sentence"),
    [
        ("</dev/null >/dev/full", "Cannot write to the standard output: no space left on device."),
        ("<&-", "Cannot read the standard input: it is closed."),
        ("0>/dev/null", "Cannot read the standard input: bad file descriptor."),
        ("</dev/zero", "Cannot read the standard input: a line has more than 1,048,576 characters."),
    ],
)
def test_input_or_output_that_cannot_be_used_is_one_sentence(
    server: ServerProcess, redirection: str, sentence: str
) -> None:
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command(server.address)]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=10 * SECOND, check=False)
    assert (done.returncode, done.stderr) == (1, f"chat-client: {sentence}\n")


def test_what_the_output_cannot_encode_is_shown_as_an_escape(server: ServerProcess) -> None:
    done = subprocess.run(
        command(server.address),
        input="snow ☃\n".encode(),
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        timeout=10 * SECOND,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"ana: snow \\u2603  (" in done.stdout


def test_lines_behind_the_end_are_told_of(server: ServerProcess, tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    typed.write_text("one\n\n/who\ntwo\n")
    with typed.open() as file, RawClient(server.address, "ana"):
        done = subprocess.run(
            command(server.address), stdin=file, capture_output=True, text=True, timeout=10 * SECOND, check=False
        )
    assert (done.returncode, done.stdout) == (1, "! at least 3 lines were not sent; the first: one\n")


def test_exit_waits_for_the_file_before_it(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("psst")
    with RawClient(server.address, "ben") as ben:
        client = subprocess.Popen(
            command(server.address), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert client.stdin is not None
        client.stdin.write(f"/send ben {path}\n/exit\n")
        client.stdin.flush()
        ben.send(type="file_end", file=ben.until("file_offered")["file"], outcome="rejected")
        shown, errors = client.communicate(timeout=10 * SECOND)
    assert "! file 1: note.txt was rejected" in shown
    assert (client.returncode, errors) == (0, "")


def test_an_interruption_before_everything_was_answered_is_told() -> None:
    said = threading.Event()
    with (
        liar(welcomed(), heard=lambda line: line["type"] == "say" and said.set()) as address,
        subprocess.Popen(command(address), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client,
    ):
        assert client.stdin is not None
        client.stdin.write("hello\n/who\n")
        client.stdin.flush()
        assert said.wait(10 * SECOND)
        client.send_signal(signal.SIGINT)
        shown, _ = client.communicate(timeout=10 * SECOND)
    assert client.returncode == 128 + signal.SIGINT
    assert shown.splitlines()[1:] == [
        "! perhaps not sent (no answer came): hello",
        "! at least 1 line was not sent; the first: /who",
    ]


def test_what_was_perhaps_not_sent_is_no_success() -> None:
    """The server takes a message and is gone, and the next one knows nothing of it: it was said, with exit code 0."""

    def next_one(first: dict[str, Any]) -> list[dict[str, Any]]:
        return (
            [WELCOME] if first["type"] == "hello" else [{"type": "refused", "code": "bad_token", "reason": ""}, WELCOME]
        )

    def take_and_go(line: dict[str, Any]) -> None:
        if line["type"] == "say":
            raise ConnectionResetError

    with liar(next_one, heard=take_and_go) as address:
        done = subprocess.run(
            command(address), input="hello\n", capture_output=True, text=True, timeout=30 * SECOND, check=False
        )
    assert "! perhaps not sent (no answer came): hello" in done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "chat-client: 1 message was not sent, or perhaps not.\n")


def test_what_is_in_doubt_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a journal the rooms' logs will show whether it was accepted."""
    loop, gone = Loop(), list[bool]()
    client = SimpleNamespace(registered=True, away=False, pending=0, in_doubt=1, files=SimpleNamespace(busy=False))
    console: Any = SimpleNamespace(client=client, leaving=False, go=lambda: gone.append(True))
    with open(os.devnull) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        pipe = Pipe(loop)
        pipe._is_file = True
        pipe._hand_over(console)
        assert not gone
        client.in_doubt = 0
        pipe._hand_over(console)
        assert gone
    loop.close()


@pytest.mark.parametrize("lines", ["hello\n/exit\n", "hello\n", "hello\n/who\n"])
def test_a_server_that_answers_nothing_is_not_waited_for_without_end(tmp_path: Path, lines: str) -> None:
    typed = tmp_path / "typed"
    typed.write_text(lines)
    impatient = (
        "import sys; from chat.console import interactive, pipe; pipe.PATIENCE_S = 0; sys.exit(interactive.main())"
    )
    with liar(welcomed()) as address, typed.open() as file:
        done = subprocess.run(
            [sys.executable, "-c", impatient, *command(address)[4:]],
            stdin=file,
            capture_output=True,
            text=True,
            timeout=10 * SECOND,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "chat-client: The server has answered nothing for 0 s.\n")
    assert done.stdout.splitlines()[1] == "! perhaps not sent (no answer came): hello"
    assert ("not sent; the first: /who" in done.stdout) == ("the first: " in done.stdout) == ("/who" in lines)


def test_patience_begins_anew_with_each_answer() -> None:
    patience = Patience()
    now_ns, almost_ns = 0, int(PATIENCE_S * 1e9) - 1
    for missing, is_progress in [(3, False), (2, False), (5, True), (4, False), (0, False), (4, False)]:
        patience.note(missing, now_ns, is_progress=is_progress)
        now_ns += almost_ns
        assert not patience.is_over(now_ns)
    patience.note(4, now_ns, is_progress=False)
    patience.note(5, now_ns, is_progress=False)
    assert patience.ends_ns(now_ns) == now_ns + 1
    assert patience.is_over(now_ns + 1)
    patience.note(0, now_ns, is_progress=False)
    assert not patience.is_over(now_ns + 1)
