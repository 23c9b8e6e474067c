"""Files over real sockets: whatever breaks, what arrives is what was sent, or there is a clear error."""

import hashlib
import os
import random
from pathlib import Path

import pytest
from chat_helpers import MODES, Clients, ServerProcess, leave

from chat.client import ChatClient, Mode
from chat.events import FileDone, FileOffered

SIZE = 3_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def accept_all(clients: Clients, receiver: ChatClient, folder: Path) -> None:
    for event in clients.of(receiver, FileOffered):
        receiver.files.accept(event.id, folder)


def transfer(clients: Clients, sender: ChatClient, receiver: ChatClient, path: Path, folder: Path) -> FileDone:
    """Send a file and receive it; what the receiver was told in the end."""
    sender.files.send(receiver.nick, path)
    known = len(clients.of(receiver, FileOffered))
    clients.until(lambda: len(clients.of(receiver, FileOffered)) > known)
    receiver.files.accept(clients.of(receiver, FileOffered)[-1].id, folder)
    done = len(clients.of(receiver, FileDone))
    clients.until(lambda: len(clients.of(receiver, FileDone)) > done, 60)
    last: FileDone = clients.of(receiver, FileDone)[-1]
    return last


@pytest.mark.parametrize("mode", MODES)
def test_a_file_arrives(server: ServerProcess, clients: Clients, mode: Mode, source: Path, tmp_path: Path) -> None:
    ana = clients.join("ana", server.address, mode=mode)
    ben = clients.join("ben", server.address, mode=mode)
    done = transfer(clients, ana, ben, source, tmp_path / "in")
    assert done.path == str(tmp_path / "in" / "picture.png")
    assert Path(done.path).read_bytes() == source.read_bytes()
    assert done.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert done.kept_bytes == 0
    clients.until(lambda: clients.of(ana, FileDone))
    (sent,) = clients.of(ana, FileDone)
    assert (sent.outgoing, sent.peer, sent.size_bytes, sent.resent_bytes, sent.path) == (True, "ben", SIZE, 0, None)
    assert os.listdir(tmp_path / "in") == ["picture.png"]
    leave(clients, ana, ben)
