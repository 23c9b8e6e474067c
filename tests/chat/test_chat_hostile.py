"""A server that means harm: what it sends reaches no terminal unescaped, and ends no client with a traceback."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from chat_helpers import SECOND

WELCOME = {
    "type": "welcome",
    "nick": "ana",
    "token": "t",
    "cursors": {"inbox": 0, "lobby": 1},
    "limits": {},
    "history": "h",
}
#: Sets a terminal's title, reverses what follows, clears the screen.
ESCAPES = "\x1b]0;owned\x07 \u202eabc \x9b2J"


@contextmanager
def hostile_server(*lines: "dict[str, object]") -> Iterator[int]:
    """Answers the first line of each connection with these, and then waits for its end."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                file.readline()
                connection.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
                connection.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):  # a client need not hear us out
                    while file.readline():
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5 * SECOND)


def visit(port: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "chat", "connect", "ana", "--port", str(port)]
    return subprocess.run(command, input="hello\n", capture_output=True, text=True, timeout=20 * SECOND, check=False)


@pytest.mark.parametrize(
    "lines",
    [
        ({"type": "refused", "code": "bad_nick", "reason": ESCAPES},),
        (WELCOME, {"type": "bye", "reason": ESCAPES}),
        (WELCOME | {"nick": ESCAPES}, {"type": "bye", "reason": "x"}),
        (WELCOME, {"type": "joined", "log": "lobby", "seq": 2, "nick": ESCAPES}, {"type": "bye", "reason": ESCAPES}),
        (WELCOME, {"type": "error", "code": "malformed", "reason": ESCAPES}, {"type": "bye", "reason": ESCAPES}),
        (WELCOME, {"type": "present", "nicks": [ESCAPES]}, {"type": "bye", "reason": ESCAPES}),
    ],
)
def test_nothing_reaches_a_terminal_unescaped(lines: "tuple[dict[str, object], ...]") -> None:
    with hostile_server(*lines) as port:
        done = visit(port)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "\\x1b]0;owned\\x07 \\u202eabc \\x9b2J" in done.stdout + done.stderr
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(done.stdout + done.stderr)
