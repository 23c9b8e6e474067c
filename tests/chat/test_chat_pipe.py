"""The interactive client in a pipe: nothing that it is given vanishes, and its exit code says how it ended."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from chat_helpers import SECOND, ServerProcess

from chat.client.outgoing import MAX_UNDER_WAY
from chat.console.console import Console
from chat.console.pipe import Pipe
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
