"""Files over real sockets: whatever breaks, what arrives is what was sent, or there is a clear error."""

import ctypes
import hashlib
import os
import random
from pathlib import Path

import pytest
from chat_helpers import MODES, Clients, RawClient, Relay, ServerProcess, finish_files, leave, server_process

from chat.client.client import ChatClient, Mode
from chat.client.events import FileDone, FileFailed, FileOffered, FileProgress, StartedAnew
from chat.protocol.errors import FileError

pytestmark = pytest.mark.realtime("chat")

SIZE = 12_000_000
HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def arrived_bytes(folder: Path) -> int:
    """How much of an unfinished file is there."""
    return sum(part.stat().st_size for part in folder.glob(".*.part"))


def begin(clients: Clients, sender: ChatClient, receiver: ChatClient, path: Path, folder: Path) -> int:
    """Offer a file and accept it; the receiver's number for it."""
    known = len(clients.of(receiver, FileOffered))
    sender.files.send(receiver.nick, path)
    clients.until(lambda: len(clients.of(receiver, FileOffered)) > known)
    number: int = clients.of(receiver, FileOffered)[-1].id
    receiver.files.accept(number, folder)
    return number


def nothing_left(clients: Clients) -> bool:
    """No client holds a transfer."""
    return not any(client.files._files or client.files._by_number for client in clients.clients)


@pytest.mark.parametrize("mode", MODES)
def test_a_file_arrives(server: ServerProcess, clients: Clients, mode: Mode, source: Path, folder: Path) -> None:
    ana = clients.join("ana", server.address, mode=mode)
    ben = clients.join("ben", server.address, mode=mode)
    begin(clients, ana, ben, source, folder)
    sent, received = finish_files(clients, ana, ben)
    assert (sent.outgoing, sent.peer, sent.size_bytes, sent.resent_bytes, sent.path) == (True, "ben", SIZE, 0, None)
    assert (received.outgoing, received.peer, received.kept_bytes) == (False, "ana", 0)
    assert received.path == str(folder / "picture.png")
    assert Path(received.path).read_bytes() == source.read_bytes()
    assert sent.sha256 == received.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert os.listdir(folder) == ["picture.png"]
    leave(clients, ana, ben)


@pytest.mark.parametrize("mode", MODES)
def test_all_connections_break_twice(
    server: ServerProcess, clients: Clients, mode: Mode, source: Path, folder: Path
) -> None:
    relay = Relay(clients.loop, server.address)
    ana = clients.join("ana", relay.address, mode=mode)
    ben = clients.join("ben", relay.address, mode=mode)
    begin(clients, ana, ben, source, folder)
    for part in (1, 2):
        clients.until(lambda: arrived_bytes(folder) >= SIZE * part // 3)  # noqa: B023
        relay.reset()
        clients.until(lambda: ana.away and ben.away)
    sent, received = finish_files(clients, ana, ben)
    assert Path(str(received.path)).read_bytes() == source.read_bytes()
    assert sent.resent_bytes < SIZE // 3
    assert ana.resumptions == ben.resumptions == 2
    leave(clients, ana, ben)
    relay.close()


@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("mode", ["standby", "redundant"])
def test_one_connection_breaks(
    server: ServerProcess, clients: Clients, mode: Mode, who: str, source: Path, folder: Path
) -> None:
    """Files take the second connection, and the first when that is gone."""
    relay = Relay(clients.loop, server.address)
    ways = {"sender": (server.address, server.address), "receiver": (server.address, server.address)}
    ways[who] = (server.address, relay.address)
    ana = clients.join("ana", *ways["sender"], mode=mode)
    ben = clients.join("ben", *ways["receiver"], mode=mode)
    begin(clients, ana, ben, source, folder)
    clients.until(lambda: arrived_bytes(folder) >= SIZE // 3)
    relay.reset()
    _, received = finish_files(clients, ana, ben)
    assert Path(str(received.path)).read_bytes() == source.read_bytes()
    leave(clients, ana, ben)
    relay.close()


def test_a_new_session_goes_on_with_what_has_arrived(clients: Clients, source: Path, folder: Path) -> None:
    """The server is killed in the middle of it, and comes back knowing nothing."""
    with server_process() as server:
        ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
        begin(clients, ana, ben, source, folder)
        clients.until(lambda: arrived_bytes(folder) >= SIZE // 3)
        server.process.kill()
        server.process.communicate()
    with server_process(port=server.address[1]):
        clients.until(lambda: clients.of(ana, StartedAnew) and clients.of(ben, StartedAnew))
        for each in (ana, ben):
            assert [event.outcome for event in clients.of(each, FileFailed)] == ["failed"]
        kept = arrived_bytes(folder)
        begin(clients, ana, ben, source, folder)
        sent, received = finish_files(clients, ana, ben)
        assert received.kept_bytes == kept >= SIZE // 3
        assert sent.resent_bytes == 0
        assert Path(str(received.path)).read_bytes() == source.read_bytes()
        assert os.listdir(folder) == ["picture.png"]
        leave(clients, ana, ben)


def test_several_at_once_in_both_directions(
    server: ServerProcess, clients: Clients, tmp_path: Path, folder: Path
) -> None:
    ana, ben = (clients.join(nick, server.address, mode="redundant") for nick in ("ana", "ben"))
    contents = [random.Random(number).randbytes(number * 100_000) for number in range(6)]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}"
        path.write_bytes(content)
        (ana, ben)[number % 2].files.send((ben, ana)[number % 2].nick, path)
    offers = lambda each: [event for event in clients.of(each, FileOffered) if not event.outgoing]  # noqa: E731
    clients.until(lambda: len(offers(ana)) == len(offers(ben)) == 3)
    for each in (ana, ben):
        for event in offers(each):
            each.files.accept(event.id, folder)
    clients.until(lambda: len(clients.of(ana, FileDone)) == len(clients.of(ben, FileDone)) == 6)
    assert [(folder / f"{number}").read_bytes() for number in range(6)] == contents
    assert nothing_left(clients)
    leave(clients, ana, ben)


@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("when", ["offered", "midway"])
def test_either_side_calls_it_off(
    server: ServerProcess, clients: Clients, who: str, when: str, source: Path, folder: Path
) -> None:
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    ana.files.send("ben", source)
    clients.until(lambda: clients.of(ben, FileOffered) and clients.of(ana, FileOffered))
    numbers = {each: clients.of(each, FileOffered)[0].id for each in (ana, ben)}
    if when == "midway":
        ben.files.accept(numbers[ben], folder)
        clients.until(lambda: arrived_bytes(folder))
    caller = ana if who == "sender" else ben
    caller.files.cancel(numbers[caller], "changed my mind")
    clients.until(lambda: clients.of(ana, FileFailed) and clients.of(ben, FileFailed))
    outcome = "rejected" if (who, when) == ("receiver", "offered") else "cancelled"
    for each in (ana, ben):
        (event,) = clients.of(each, FileFailed)
        assert (event.outcome, event.reason) == (outcome, "changed my mind")
        with pytest.raises(FileError, match=f"There is no transfer {numbers[each]}"):
            each.files.cancel(numbers[each])
    assert not folder.exists() or not os.listdir(folder)
    assert nothing_left(clients)
    leave(clients, ana, ben)


def test_a_reason_that_is_not_utf_8_is_told_all_the_same(server: ServerProcess, clients: Clients, source: Path) -> None:
    """As when it names a folder of ours that is not."""
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    ana.files.send("ben", source)
    clients.until(lambda: clients.of(ben, FileOffered))
    ben.files.cancel(clients.of(ben, FileOffered)[0].id, "not in \udce4")
    clients.until(lambda: clients.of(ana, FileFailed))
    assert clients.of(ana, FileFailed)[0].reason == r"not in \udce4"
    leave(clients, ana, ben)


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_either_side_leaves_midway(
    server: ServerProcess, clients: Clients, who: str, source: Path, folder: Path
) -> None:
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    begin(clients, ana, ben, source, folder)
    clients.until(lambda: arrived_bytes(folder))
    gone, other = (ana, ben) if who == "sender" else (ben, ana)
    gone.leave()
    clients.until(lambda: gone.closed and clients.of(other, FileFailed))
    assert len(clients.of(gone, FileFailed)) == 1
    assert clients.of(other, FileFailed)[0].reason == f"{gone.nick} has left: said bye"
    assert nothing_left(clients)
    leave(clients, other)


def test_nobody_answers(server: ServerProcess, clients: Clients, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.client.files.desk.OFFER_S", 0.2)
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    ana.files.send("ben", source)
    clients.until(lambda: clients.of(ben, FileFailed) and clients.of(ana, FileFailed))
    assert clients.of(ben, FileFailed)[0].reason == "Nobody answered the offer."
    leave(clients, ana, ben)


def test_an_offer_that_its_sender_forgets(
    server: ServerProcess, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.client.files.desk.OFFER_S", 0.2)
    ben = clients.join("ben", server.address)
    with RawClient(server.address, "ana") as ana:
        ana.send(type="file_offer", to="ben", name="a", size=1, sha256="0" * 64)
        clients.until(lambda: clients.of(ben, FileFailed))
        ended = ana.until("file_ended")
    assert (ended["from"], ended["outcome"], ended["reason"]) == ("ben", "cancelled", "Nobody answered the offer.")
    leave(clients, ben)


def test_offers_are_bounded(server: ServerProcess, clients: Clients, source: Path) -> None:
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    for _ in range(9):
        ana.files.send("ben", source)
    clients.until(lambda: clients.of(ana, FileFailed) and len(clients.of(ben, FileOffered)) == 8)
    assert clients.of(ana, FileFailed)[0].reason == "ana has 8 transfers open already."
    ana.files.send("zoe", source)
    ana.files.send("ana", source)
    clients.until(lambda: len(clients.of(ana, FileFailed)) == 3)
    reasons = {event.reason for event in clients.of(ana, FileFailed)[1:]}
    assert reasons == {"Nobody here is called zoe.", "You cannot send a file to yourself."}
    leave(clients, ana, ben)


# Bad files, and bad folders.


def test_what_cannot_be_sent(server: ServerProcess, clients: Clients, tmp_path: Path) -> None:
    ana = clients.join("ana", server.address)
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path, "it is not a plain file"),
        (tmp_path / "pipe", "it is not a plain file"),
        (tmp_path / "nothing", "no such file or directory"),
        (Path("/dev/null"), "it is not a plain file"),
    ):
        with pytest.raises(FileError, match=reason):
            ana.files.send("ben", path)
    assert nothing_left(clients)
    leave(clients, ana)


def test_an_empty_file(server: ServerProcess, clients: Clients, tmp_path: Path, folder: Path) -> None:
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    empty = tmp_path / "empty"
    empty.touch()
    begin(clients, ana, ben, empty, folder)
    _, received = finish_files(clients, ana, ben)
    assert Path(str(received.path)).read_bytes() == b""
    leave(clients, ana, ben)


def test_a_file_that_shrinks_while_it_is_sent(
    server: ServerProcess, clients: Clients, source: Path, folder: Path
) -> None:
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    begin(clients, ana, ben, source, folder)
    clients.until(lambda: arrived_bytes(folder))
    os.truncate(source, SIZE // 2)
    clients.until(lambda: clients.of(ana, FileFailed) and clients.of(ben, FileFailed))
    for each in (ana, ben):
        assert clients.of(each, FileFailed)[0].reason == "picture.png has become shorter while it was being sent."
    leave(clients, ana, ben)


def test_a_file_that_changes_while_it_is_sent(
    server: ServerProcess, clients: Clients, source: Path, folder: Path
) -> None:
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    begin(clients, ana, ben, source, folder)
    with source.open("r+b") as file:
        file.seek(SIZE - 1)
        file.write(b"?" if source.read_bytes()[-1:] != b"?" else b"!")
    clients.until(lambda: clients.of(ana, FileFailed) and clients.of(ben, FileFailed), 60)
    for each in (ana, ben):
        reason = "What was received is not what was offered: the checksums differ."
        assert clients.of(each, FileFailed)[0].reason == reason
    assert os.listdir(folder) == []
    leave(clients, ana, ben)


def test_an_existing_name_is_never_overwritten(
    server: ServerProcess, clients: Clients, tmp_path: Path, folder: Path
) -> None:
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    note = tmp_path / "note.txt"
    folder.mkdir()
    (folder / "note.txt").write_text("precious")
    (folder / "note (1).txt").symlink_to(tmp_path / "elsewhere")
    for text in ("one", "two"):
        note.write_text(text)
        before = len(clients.of(ben, FileDone))
        begin(clients, ana, ben, note, folder)
        clients.until(lambda: len(clients.of(ben, FileDone)) > before)  # noqa: B023
    assert {path.name: path.read_text() for path in folder.iterdir() if not path.is_symlink()} == {
        "note.txt": "precious",
        "note (2).txt": "one",
        "note (3).txt": "two",
    }
    assert not (tmp_path / "elsewhere").exists()
    leave(clients, ana, ben)


def test_the_same_file_twice_at_once(server: ServerProcess, clients: Clients, source: Path, folder: Path) -> None:
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    begin(clients, ana, ben, source, folder)
    with pytest.raises(FileError, match="being received in"):
        begin(clients, ana, ben, source, folder)
    finish_files(clients, ben)
    leave(clients, ana, ben)


def test_a_folder_that_cannot_be_used(server: ServerProcess, clients: Clients, source: Path, tmp_path: Path) -> None:
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file exists"):
        begin(clients, ana, ben, source, tmp_path / "file")
    with pytest.raises(FileError, match="Cannot store files in /proc/nothing"):
        ben.files.accept(clients.of(ben, FileOffered)[0].id, "/proc/nothing")
    # Nor can the temporary name be a trap that somebody laid.
    trap = tmp_path / "trap"
    trap.mkdir()
    name = f".{clients.of(ben, FileOffered)[0].sha256}.part"
    for lay in (os.mkfifo, lambda path: os.symlink(source, path)):
        lay(trap / name)
        with pytest.raises(FileError, match="Cannot store files in"):
            ben.files.accept(clients.of(ben, FileOffered)[0].id, trap)
        (trap / name).unlink()
    assert source.stat().st_size == SIZE
    # The offer still stands.
    ben.files.accept(clients.of(ben, FileOffered)[0].id, tmp_path / "in")
    finish_files(clients, ana, ben)
    leave(clients, ana, ben)


def test_a_full_disk(server: ServerProcess, clients: Clients, source: Path, folder: Path) -> None:
    """A file system of 4 MB, in a mount namespace of a child; the sender is in this process."""
    ana = clients.join("ana", server.address)
    report, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _mount_tmpfs(folder)
            with Clients() as others:
                ben = others.join("ben", server.address)
                os.write(theirs, b"ready\n")
                others.until(lambda: others.of(ben, FileOffered))
                ben.files.accept(1, folder)
                others.until(lambda: others.of(ben, FileFailed), 60)
                text = f"{others.of(ben, FileFailed)[0].reason} {os.listdir(folder)} {nothing_left(others)}\n"
                leave(others, ben)
            os.write(theirs, text.encode())
        except PermissionError:
            os.write(theirs, b"no namespaces\n")
        finally:
            os._exit(0)
    os.close(theirs)
    with open(report) as lines:
        first = lines.readline().strip()
        if first == "no namespaces":
            os.waitpid(child, 0)
            pytest.skip("this user may not make a mount namespace")
        assert first == "ready"
        ana.files.send("ben", source)
        clients.until(lambda: clients.of(ana, FileFailed), 60)
        assert lines.readline() == "Cannot store the file: no space left on device. [] True\n"
    os.waitpid(child, 0)
    assert clients.of(ana, FileFailed)[0].reason == "Cannot store the file: no space left on device."
    leave(clients, ana)


def _mount_tmpfs(folder: Path) -> None:
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, clone_newuser, ms_rec_private = 0x20000, 0x10000000, 0x4000 | 0x40000
    flags = clone_newns if os.geteuid() == 0 else clone_newns | clone_newuser
    if libc.unshare(flags) or libc.mount(None, b"/", None, ms_rec_private, None):
        raise PermissionError(ctypes.get_errno(), "unshare")
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=4m"):
        raise PermissionError(ctypes.get_errno(), "mount")


def test_progress_is_told(
    server: ServerProcess, clients: Clients, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.client.files.desk.PROGRESS_NS", 1)
    ana, ben = (clients.join(nick, server.address) for nick in ("ana", "ben"))
    begin(clients, ana, ben, source, folder)
    finish_files(clients, ana, ben)
    for each in (ana, ben):
        steps = [event.done_bytes for event in clients.of(each, FileProgress)]
        assert steps == sorted(set(steps))
        assert steps[-1] == SIZE
    assert clients.of(ben, FileDone)[0].goodput_bps > 0
    leave(clients, ana, ben)
