"""Where users under load keep what they receive."""

from pathlib import Path

import pytest
from chat_helpers import Clients
from hostile_helpers import OFFER, WELCOME, liar

from chat.client.client import ChatClient
from chat.client.events import Event, FileFailed
from loadtests.load.fileload import FileStore, FileTraffic

pytestmark = pytest.mark.realtime("chat")


def test_a_nickname_from_a_server_is_no_folder(clients: Clients, tmp_path: Path) -> None:
    """What a user has received is removed; a server that says what the user is called must not choose what that is."""
    store = FileStore(5)
    victim = store.folder.parent / f"{tmp_path.name}-victim-1"
    victim.mkdir()
    lines = [
        {**WELCOME, "nick": f"../{tmp_path.name}-victim"},
        {**OFFER, "seq": 1},
        {"type": "file_ended", "log": "inbox", "seq": 2, "from": "eve", "file": 1, "outcome": "failed"},
    ]
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        traffic.note(event)

    try:
        with liar(lambda _: lines) as address:
            client = ChatClient(clients.loop, "ana", address, on_event=on_event)
            traffic = FileTraffic(client, store, lambda *_: None)
            client.connect()
            clients.until(lambda: any(isinstance(event, FileFailed) for event in events))
            assert victim.exists()
            client.close()
        assert [*store.folder.iterdir()] == [], "and what was received is removed"
    finally:
        store.close()
        victim.rmdir()
