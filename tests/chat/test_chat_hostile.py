"""Servers that lie: whatever they say, the client's loop goes on, nothing grows without bound, no file is touched."""

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from chat_helpers import MODES, Clients
from hostile_helpers import OFFER, WELCOME, liar, welcomed

from chat.client.client import Mode
from chat.client.events import Closed, FileFailed, FileOffered, FileProgress, PathDown, Registered
from chat.client.files.downloads import Part
from chat.console.shelf import Shelf
from chat.protocol.errors import FileError

pytestmark = pytest.mark.realtime("chat")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "lie",
    [
        {**WELCOME, "cursors": {}},
        {**WELCOME, "limits": {"line_bytes": -(2**70)}},
        {"type": "settled", "id": 1, "nick": "ana", "cursors": {}},
        {"type": "member", "cursors": {"tea": 1}},
        {"type": "attached", "nick": "ana", "cursors": {}},
        {"type": "bye", "back_in_s": 1e300},
    ],
    ids=lambda lie: lie["type"],
)
def test_a_lie_instead_of_a_welcome_ends_the_attempt(clients: Clients, mode: Mode, lie: dict[str, Any]) -> None:
    with liar(lambda _: [lie]) as address:
        client = clients.add("ana", address, mode=mode)
        clients.until(lambda: client.closed)
    (closed,) = clients.of(client, Closed)
    assert closed.reason.startswith("The server cannot be understood: ")
    assert not clients.of(client, Registered)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "lies",
    [
        [WELCOME] * 300,
        [{"type": "attached", "nick": "ana", "cursors": {}}],
        [{"type": "settled", "id": 1, "nick": "ana", "cursors": {"tea": 1}}],
        [{"type": "said", "log": "lobby", "seq": -(2**70), "from": "eve", "text": "x"}],
        [{"type": "present", "nicks": [7]}],
        [{**OFFER, "seq": 1, "size": -(2**70)}],
        [{**OFFER, "seq": 1, "sha256": "/../../victim"}],
        [{**OFFER, "seq": 1, "sha256": "\0" * 64}],
        [{**OFFER, "seq": 1}, {**OFFER, "seq": 2}],
        [{**OFFER, "seq": number, "file": number} for number in range(1, 1_000)],
    ],
    ids=lambda lies: f"{lies[-1]['type']} {len(lies)}",
)
def test_a_lie_in_a_session_breaks_the_connection_only(
    clients: Clients, mode: Mode, lies: list[dict[str, Any]]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with liar(welcomed(*lies)) as address:
        client = clients.add("ana", address, mode=mode)
        clients.until(lambda: clients.of(client, PathDown))
        (down,) = [event for event in clients.of(client, PathDown) if event.path == "primary"]
        assert down.reason.startswith("The server cannot be understood: ")
        # Both connections have two ends here, and there is the listener.
        assert len(os.listdir("/proc/self/fd")) <= before + 8
        assert len(clients.of(client, FileOffered)) <= 64
        client.close()


def test_a_checksum_is_no_path(tmp_path: Path) -> None:
    """Not even for who makes a Part without the protocol's types in between."""
    victim = tmp_path / "victim.part"
    victim.write_text("mine")
    (tmp_path / "downloads" / ".").mkdir()
    with pytest.raises(FileError, match="not a SHA-256"):
        Part(tmp_path / "downloads", "/../../victim", 1)
    assert victim.read_text() == "mine"


def test_a_file_lands_in_the_folder_that_was_chosen_whatever_becomes_of_its_name(tmp_path: Path) -> None:
    """Somebody swaps the folder for a link to another while the file is being received."""
    folder, elsewhere = tmp_path / "downloads", tmp_path / "elsewhere"
    elsewhere.mkdir()
    part = Part(folder, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", 5)
    assert part.hash_some()
    folder.rename(tmp_path / "moved")
    folder.symlink_to(elsewhere)
    part.append(b"hello")
    part.finish("hello.txt")
    assert (tmp_path / "moved" / "hello.txt").read_bytes() == b"hello"
    assert not os.listdir(elsewhere)


def test_a_part_that_is_no_plain_file_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / f".{'ab' * 32}.part").mkdir()
    with pytest.raises(FileError, match="Cannot store files in"):
        Part(tmp_path, "ab" * 32, 5)
    os.rmdir(tmp_path / f".{'ab' * 32}.part")
    os.mkfifo(tmp_path / f".{'ab' * 32}.part")
    with pytest.raises(FileError, match="Cannot store files in"):
        Part(tmp_path, "ab" * 32, 5)


def test_what_was_received_before_may_become_shorter(tmp_path: Path) -> None:
    with contextlib.closing(Part(tmp_path, "ab" * 32, 5)) as part:
        part.append(b"four")
    with contextlib.closing(Part(tmp_path, "ab" * 32, 5)) as part:
        (file,) = tmp_path.iterdir()
        file.write_bytes(b"")
        with pytest.raises(FileError, match="What was received before has become shorter"):
            part.hash_some()


def test_progress_of_an_empty_file(clients: Clients, tmp_path: Path) -> None:
    """A peer accepts it and gives its credit late."""
    about = (1, True, "ben", "empty", 0, "ab" * 32, 3)
    shelf = Shelf(clients.add("ana", ("127.0.0.1", 1)), tmp_path)
    assert shelf.note(FileOffered(*about)) is None
    assert shelf.note(FileProgress(*about, 0)) is None
    assert shelf.bars() == "empty → ben [####################] 100 % of 0 B"
    assert shelf.note(FileFailed(*about, "failed", "")) is None
