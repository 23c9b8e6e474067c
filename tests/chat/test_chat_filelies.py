"""Senders of files that speak the protocol themselves, and lie: a clear error, and nothing damaged."""

import hashlib
import os
from base64 import b64encode
from pathlib import Path

import pytest
from chat_helpers import Clients, RawClient, ServerProcess, finish_files, leave

from chat.client.client import ChatClient
from chat.client.events import FileFailed, FileOffered

pytestmark = pytest.mark.realtime("chat")

HELLO = hashlib.sha256(b"hello").hexdigest()


class Liar(RawClient):
    """Offers a file to ben, and gets it accepted."""

    def offer(self, clients: Clients, ben: ChatClient, folder: Path, name: str, size: int, sha256: str = HELLO) -> int:
        self.send(type="file_offer", to="ben", name=name, size=size, sha256=sha256)
        number: int = self.until("file_offered")["file"]
        clients.until(lambda: clients.of(ben, FileOffered))
        ben.files.accept(clients.of(ben, FileOffered)[0].id, folder)
        clients.until(lambda: ben.files._by_number[number].accepted_ns)
        self.until("file_credit", file=number)
        return number

    def chunk(self, number: int, offset: int, data: bytes) -> None:
        self.send(type="file_chunk", file=number, offset=offset, data=b64encode(data).decode())


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("..", "file"),
        ("/", "file"),
        (".bashrc", "bashrc"),
        ("a\x00b\x1b[2J\n\u202egpj.exe", "a_b_[2J__gpj.exe"),
        ("CON.txt", "_CON.txt"),
        ("é" * 255, "é" * 100),
        ("é" * 250 + ".jpeg", "é" * 97 + ".jpeg"),
    ],
)
def test_names_that_mean_harm(server: ServerProcess, clients: Clients, folder: Path, name: str, stored: str) -> None:
    ben = clients.join("ben", server.address)
    with Liar(server.address, "mallory") as mallory:
        number = mallory.offer(clients, ben, folder, name, 5)
        mallory.chunk(number, 0, b"hello")
        (done,) = finish_files(clients, ben)
        assert done.path == str(folder / stored)
        assert os.listdir(folder) == [stored]
        assert (folder / stored).read_text() == "hello"
    leave(clients, ben)


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([(0, b"hello!")], "The sender sent more than it had offered."),
        ([(0, b"hel"), (3, b"lo!")], "The sender sent more than it had offered."),
        ([(0, b"HELLO")], "What was received is not what was offered: the checksums differ."),
    ],
)
def test_a_sender_that_lies(
    server: ServerProcess, clients: Clients, folder: Path, chunks: list[tuple[int, bytes]], reason: str
) -> None:
    ben = clients.join("ben", server.address)
    with Liar(server.address, "mallory") as mallory:
        number = mallory.offer(clients, ben, folder, "hello.txt", 5)
        for offset, data in chunks:
            mallory.chunk(number, offset, data)
        clients.until(lambda: clients.of(ben, FileFailed))
        assert clients.of(ben, FileFailed)[0].reason == reason
        assert mallory.until("file_ended")["reason"] == reason
        assert not list(folder.glob("[!.]*"))
    leave(clients, ben)


def test_a_sender_that_stops(
    server: ServerProcess, clients: Clients, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.client.files.desk.STALL_S", 0.3)
    ben = clients.join("ben", server.address)
    with Liar(server.address, "mallory") as mallory:
        number = mallory.offer(clients, ben, folder, "hello.txt", 5)
        mallory.chunk(number, 0, b"hel")
        mallory.send(type="file_end", file=number, outcome="done")
        assert mallory.until("refused")["code"] == "no_such_file"
        clients.until(lambda: clients.of(ben, FileFailed))
        assert clients.of(ben, FileFailed)[0].reason == "Nothing has moved for 0.3 s."
        # What came is kept: the same offer may come again.
        assert [path.read_bytes() for path in folder.iterdir()] == [b"hel"]
    leave(clients, ben)


def test_a_sender_that_floods(server: ServerProcess, clients: Clients, folder: Path) -> None:
    """What is not granted is not held by the server."""
    ben = clients.join("ben", server.address)
    with Liar(server.address, "mallory") as mallory, RawClient(server.address, "cleo") as cleo:
        mallory.send(type="file_offer", to="cleo", name="flood", size=10**9, sha256=HELLO)
        number = cleo.until("file_offered")["file"]
        mallory.until("file_offered")
        cleo.send(type="file_accept", file=number)
        cleo.send(type="file_credit", file=number, offset=0, again=True)
        mallory.until("file_credit")
        for index in range(20):
            mallory.chunk(number, index * 40_000, bytes(40_000))
        assert mallory.until("file_ended")["reason"] == "The sender sent more than it was granted."
        assert cleo.until("file_ended")["outcome"] == "failed"
    leave(clients, ben)
