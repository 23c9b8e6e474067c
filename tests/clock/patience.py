"""How long server and clients wait for one another, in full length; run by test_patience.py, in virtual time."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chat_helpers import Clients, RawClient, Relay, ServerProcess, server_process

from chat.client.client import RETRY_S
from chat.client.events import Closed, FileFailed, FileOffered
from chat.client.files.desk import OFFER_S
from chat.server.server import GRACE_S, REGISTRATION_S

#: Nothing disturbs this clock: a wait is as long as it says, but for round trips on loopback and a look once a second.
AFTER_S = 1.5


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with server_process() as server:
        yield server


def waited_s(clients: Clients, condition: Callable[[], object], seconds: float) -> float:
    """How long until the condition holds."""
    begin_s = time.monotonic()
    clients.until(condition, seconds)
    return time.monotonic() - begin_s


def test_a_stranger_that_says_nothing(server: ServerProcess) -> None:
    """It is closed after ten seconds, with the reason."""
    with RawClient(server.address) as stranger:
        stranger.sock.settimeout(60)
        begin_s = time.monotonic()
        error = stranger.until("error")
        assert error["code"] == "registration_timeout"
        assert REGISTRATION_S <= time.monotonic() - begin_s < REGISTRATION_S + AFTER_S


def test_a_session_whose_connections_broke(server: ServerProcess, clients: Clients) -> None:
    """The others are told that it left once its grace is over, and not before."""
    with RawClient(server.address, "ben") as ben:
        ben.sock.settimeout(120)
        relay = Relay(clients.loop, server.address)
        clients.join("ana", relay.address)
        ben.until("joined", nick="ana")
        relay.reset()
        relay.close()  # nobody lets it in again
        begin_s = time.monotonic()
        ben.until("left", nick="ana")
        assert GRACE_S <= time.monotonic() - begin_s < GRACE_S + AFTER_S


def test_a_client_whose_server_is_gone(server: ServerProcess, clients: Clients) -> None:
    """It tries for a minute, and says then that it gives up."""
    ana = clients.join("ana", server.address)
    server.process.kill()
    server.end()
    taken_s = waited_s(clients, lambda: clients.of(ana, Closed), 2 * RETRY_S)
    assert RETRY_S <= taken_s < RETRY_S + AFTER_S
    assert "could be reached again for 60 s" in clients.of(ana, Closed)[0].reason


def test_an_offer_that_nobody_answers(server: ServerProcess, clients: Clients, tmp_path: Path) -> None:
    """The sender withdraws it after five minutes, and both are told."""
    (tmp_path / "notes.txt").write_text("hello")
    ana, ben = clients.join("ana", server.address), clients.join("ben", server.address)
    ana.files.send("ben", tmp_path / "notes.txt")
    clients.until(lambda: clients.of(ben, FileOffered))
    taken_s = waited_s(clients, lambda: clients.of(ben, FileFailed) and clients.of(ana, FileFailed), 2 * OFFER_S)
    assert OFFER_S - AFTER_S < taken_s < OFFER_S + AFTER_S
    assert clients.of(ben, FileFailed)[0].reason == "Nobody answered the offer."
