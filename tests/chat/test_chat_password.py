"""A server's password: who knows it comes in, who does not is told, and guessing does not pay."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_helpers import MODES, Clients, RawClient, ServerProcess, leave, server_process

from chat.client.client import Mode
from chat.client.events import Closed
from chat.server.guesses import MAX_TRIES

pytestmark = pytest.mark.realtime("chat")

PASSWORD = "swordfish and ä"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("password") / "file"
    file.write_text(f"{PASSWORD}\nwhat follows is no part of it\n", encoding="utf-8-sig")  # as some editors do
    return file


@pytest.fixture
def server(file: Path) -> Iterator[ServerProcess]:
    with server_process("127.0.0.1", "--password-file", str(file), limits=True) as server:
        yield server


@pytest.mark.parametrize("mode", MODES)
def test_who_knows_it_comes_in_and_comes_back(clients: Clients, server: ServerProcess, mode: Mode) -> None:
    ana = clients.join("ana", server.address, mode=mode, password=PASSWORD)
    ana.reconnect()
    clients.until(lambda: ana.registered and not ana.away)
    leave(clients, ana)


@pytest.mark.parametrize(
    ("password", "reason"),
    [("", "This server wants a password."), ("swordfish", "That is not the password of this server.")],
)
def test_who_does_not_is_told(clients: Clients, server: ServerProcess, password: str, reason: str) -> None:
    ana = clients.add("ana", server.address, password=password)
    clients.until(lambda: clients.of(ana, Closed))
    assert [event.reason for event in clients.of(ana, Closed)] == [reason]


def test_guessing_closes_the_connection(server: ServerProcess) -> None:
    with RawClient(server.address) as guesser:
        for number in range(MAX_TRIES):
            guesser.send(type="hello", nick="ana", password=f"{number}")
        assert [guesser.receive()["code"] for _ in range(MAX_TRIES)] == ["wrong_password"] * MAX_TRIES
        while (line := guesser.receive()) is not None:
            assert line["type"] == "bye"
    with RawClient(server.address) as ana:
        assert ana.ask("welcome", type="hello", nick="ana", password=PASSWORD)["nick"] == "ana"


@pytest.mark.parametrize("command", ["serve", "connect ana"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read {file}: No such file or directory"),
        (b"\n", "the first line of {file} must have 1 to 1024 characters"),
        (b"\xff\n", "{file} is not text in UTF-8"),
    ],
)
def test_a_file_without_one_is_said(tmp_path: Path, command: str, content: bytes | None, reason: str) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    words = [sys.executable, "-m", "chat", *command.split(), "--password-file", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"argument --password-file: {reason.format(file=file)}")
