"""Files in the interactive client: in a pipe, between two real processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from chat_helpers import SECOND, Clients, ServerProcess

from chat.client.events import FileDone, FileFailed, FileOffered, FileProgress
from chat.console.display import describe
from chat.console.shelf import Shelf
from chat.protocol.errors import FileError

pytestmark = pytest.mark.realtime("chat")

OUT = (1, True, "ben", "a\x1b.txt", 2_000_000, "ab" * 32, 1)
IN = (2, False, "ana", "b.txt", 12, "ab" * 32, 2)


class Person:
    """`chat-client` with a pipe for input."""

    def __init__(self, server: ServerProcess, nick: str, *options: str) -> None:
        command = [sys.executable, "-m", "chat", "connect", nick, "--port", str(server.address[1]), *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.until("* you are")

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def until(self, part: str) -> str:
        """Read on to a line with this in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if part in line:
                return line
        raise AssertionError(f"the client ended before it said {part}")

    def leave(self) -> None:
        self.type("/exit")
        self.process.communicate(timeout=10 * SECOND)


def test_a_file_goes_from_one_to_the_other(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "a note.txt").write_text("psst")
    ana = Person(server, "ana")
    ben = Person(server, "ben", "--downloads", str(tmp_path / "in"))
    ana.type(f"/send ben {tmp_path / 'a note.txt'}")
    assert "ana offers a note.txt, 4 B; /accept 1 or /reject 1" in ben.until("file 1")
    ben.type("/accept")
    assert f"a note.txt from ana is in {tmp_path / 'in' / 'a note.txt'}; 4 B" in ben.until("file 1")
    ana.until("file 1: a note.txt, 4 B, is offered to ben")
    assert "ben has a note.txt" in ana.until("file 1")
    assert (tmp_path / "in" / "a note.txt").read_text() == "psst"
    ana.type(f"/send ben {tmp_path / 'a note.txt'}")
    ben.until("file 2")
    ben.type("/reject 2")
    assert "a note.txt was rejected" in ana.until("was rejected")
    ana.type(f"/send ben {tmp_path}")
    assert "it is not a plain file" in ana.until("!")
    # The end of its input does not take a file away that is under way.
    ana.type(f"/send ben {tmp_path / 'a note.txt'}")
    assert ana.process.stdin is not None
    ana.process.stdin.close()
    ben.until("file 3")
    ben.type("/accept 3")
    ben.until("a note (1).txt; 4 B")
    assert ana.process.wait(10 * SECOND) == 0
    assert ana.process.stdout is not None
    ana.process.stdout.close()
    ben.leave()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (FileOffered(*OUT), r"* file 1: a\x1b.txt, 2 MB, is offered to ben"),
        (FileOffered(*IN), "* file 2: ana offers b.txt, 12 B; /accept 2 or /reject 2"),
        (
            FileDone(*OUT, None, 8_000_000_000, 0, 0),
            r"* file 1: ben has a\x1b.txt; 2 MB, 2 Mbit/s, SHA-256 abababababab…",
        ),
        (FileFailed(*IN, "cancelled", ""), "! file 2: b.txt was cancelled"),
        (FileFailed(*IN, "failed", "No\x07."), r"! file 2: b.txt failed: No\x07."),
        (FileProgress(*OUT, 1), None),
    ],
)
def test_lines(event: FileOffered, line: str | None) -> None:
    assert describe(event, "ana") == line


def test_bars(clients: Clients, server: ServerProcess, tmp_path: Path) -> None:
    shelf = Shelf(clients.join("ana", server.address), tmp_path)
    assert shelf.note(FileOffered(*OUT)) is None
    assert shelf.bars() == ""
    assert shelf.note(FileProgress(*OUT, 100_000)) is None
    line = r"a\x1b.txt → ben [##########..........] 50 % of 2 MB"
    assert shelf.note(FileProgress(*OUT, 1_000_000)) == f"* file 1: {line}"
    assert shelf.bars() == line
    assert shelf.numbers == ["1"]
    with pytest.raises(FileError, match="No file transfer is waiting"):
        shelf.accept()
    with pytest.raises(FileError, match=r"No file transfer x is waiting; there is 1\."):
        shelf.cancel("x")
    shelf.note(FileFailed(*OUT, "failed", ""))
    assert shelf.bars() == ""
    assert shelf.numbers == []
