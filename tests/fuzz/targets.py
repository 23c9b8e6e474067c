"""What is fuzzed: functions that take any bytes and must not raise, but for what they say.

Each is given to hypothesis (`tests/test_fuzz.py`, and `python tests/fuzz`) or, where it is installed, to atheris, which
knows what code an input reaches. What was found once is in `tests/fuzz/corpus` and is tried first ever after.
"""

import contextlib
import logging
import selectors
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chat.client.client import ChatClient
from chat.client.events import Event, FileOffered
from chat.net.loop import Loop
from chat.protocol.errors import ChatError, Refusal
from chat.protocol.names import clean_nick, clean_room, fold, skeleton
from chat.protocol.wire import DOWN, UP, BadLine, LineReader, encode
from chat.server.journal import Journal, JournalError
from chat.server.rooms import Rooms
from chat.server.server import ChatServer
from loadtests.analysis.read import open_run
from loadtests.analysis.stats import summarise
from loadtests.config.yamlfile import Document
from loadtests.data import shipped
from loadtests.errors import ConfigError, HarnessError
from loadtests.link.model.trace import read_trace
from loadtests.samples import TABLES
from loadtests.scenario.scenario import decode

#: Parts an input into what comes over one connection and over the next.
NEXT = b"\x00"
#: Turns of a loop after which a peer has done all that it is going to do with an input.
TURNS = 40

logging.getLogger("chat").setLevel(logging.CRITICAL)


def wire(data: bytes) -> None:
    """However a stream is cut, the same messages come out, and each can be said again."""
    for decoder in (UP, DOWN):
        whole = read(LineReader(decoder, 4096), [data])
        assert read(LineReader(decoder, 4096), [data[:7], data[7:8], data[8:]]) == whole
        for message in whole:
            if not isinstance(message, BadLine):
                assert decoder.decode(encode(message)) == message


def read(reader: "LineReader[Any]", pieces: list[bytes]) -> list[Any]:
    return [message for piece in pieces for message in reader.feed(piece)]


def names(data: bytes) -> None:
    """A name that is clean stays as it is, is found however it is written, and prints."""
    text = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    fold(text), skeleton(text[:1000])
    for clean in (clean_nick, clean_room):
        try:
            name = clean(text, 32)
        except Refusal as refusal:
            _is_short(refusal)
            continue
        assert clean(name, 32) == name
        assert name.isprintable()
        assert fold(name) == fold(text)


def _is_short(refusal: Refusal) -> None:
    assert len(refusal.reason) < 400, "a refusal quotes too much"


def _names(path: Path, error: Exception) -> None:
    assert str(path) in str(error), f"a user is not told which file is meant: {error}"


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def server(data: bytes) -> None:
    """Whatever strangers send, those who behave are served."""
    loop = Loop(selectors.SelectSelector())
    serving = ChatServer(loop, "127.0.0.1", 0)
    with contextlib.ExitStack() as sockets:
        witness = sockets.enter_context(socket.create_connection(serving.address))
        witness.setblocking(False)
        witness.sendall(b'{"type":"hello","nick":"witness"}\n')
        for piece in data.split(NEXT)[:4]:
            stranger = sockets.enter_context(socket.create_connection(serving.address))
            stranger.setblocking(False)
            stranger.send(piece) if piece else None
            _turn(loop, 4)
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                stranger.recv(65_536)
        witness.sendall(b'{"type":"ping","n":4711}\n')
        heard = b""
        for _ in range(1000):
            _turn(loop, 1)
            with contextlib.suppress(BlockingIOError):
                heard += witness.recv(65_536)
            if b'"n":4711' in heard:
                break
        else:
            raise AssertionError("the witness has no answer")
    serving.close("done")
    _turn(loop, TURNS)
    for _, transport in list(serving.connections()):
        transport.close()
    loop.close()


def client(data: bytes) -> None:
    """Whatever a server sends, a client ends in order, stays inside its folder, and opens two connections at most."""
    loop = Loop(selectors.SelectSelector())
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "victim").write_text("untouched")
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)

        def note(event: Event) -> None:
            if isinstance(event, FileOffered) and not event.outgoing:
                with contextlib.suppress(ChatError):
                    victim.files.accept(event.id, folder / "in")

        victim = ChatClient(loop, "ana", listener.getsockname(), mode="redundant", on_event=note)
        victim.connect()
        pieces = iter(data.split(NEXT))
        held: list[socket.socket] = []
        for _ in range(TURNS):
            _turn(loop, 1)
            with contextlib.suppress(BlockingIOError):
                held.append(stack.enter_context(listener.accept()[0]))
                with contextlib.suppress(ConnectionError):
                    held[-1].sendall(next(pieces, b""))
            if victim.registered and not victim.pending:
                with contextlib.suppress(ChatError):
                    victim.say("hello")
        assert len(held) <= 4, "a client of two connections, each of which may be replaced, has opened more"
        victim.close()
        assert victim.closed
        assert {path.name for path in folder.iterdir()} <= {"victim", "in"}
        assert (folder / "victim").read_text() == "untouched"
    loop.close()


def _turn(loop: Loop, times: int) -> None:
    for _ in range(times):
        loop.run_once(0)


def scenario(data: bytes) -> None:
    """A scenario file is taken, or refused in one sentence that names it."""
    with _file(data) as path:
        try:
            decode(Document.read(path))
        except ConfigError as error:
            _names(path, error)


def trace(data: bytes) -> None:
    """A trace is taken, or refused in a sentence."""
    with _file(data) as path:
        try:
            times_ms = read_trace(str(path))
        except ValueError as error:
            _names(path, error)
        else:
            assert times_ms[-1] > 0


def journal(data: bytes) -> None:
    """A journal is taken, or refused in a sentence."""
    with _file(data) as path:
        try:
            with contextlib.closing(Journal(str(path))) as opened:
                opened.restore(Rooms(name_chars=32))
        except JournalError as error:
            _names(path, error)


def run_directory(data: bytes) -> None:
    """A run of somebody else's is summarised, or refused in a sentence that names the file.

    The input is a file's name, a NUL, and what the file of the reference run says instead.
    """
    name, _, content = data.partition(NEXT)
    with tempfile.TemporaryDirectory() as folder:
        for file in (shipped("results") / "reference").iterdir():
            (Path(folder) / file.name).symlink_to(file)
        names = {file.name for file in Path(folder).iterdir()}
        damaged = Path(folder) / (name.decode() if name.decode("latin-1") in names else "run.json")
        damaged.unlink()
        damaged.write_bytes(content)
        try:
            run = open_run(folder, with_disturbed=False)
            if damaged.stem in TABLES:
                run.rows(damaged.stem)
            summarise(run)
        except HarnessError as error:
            _names(Path(folder), error)


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input.yaml"
        path.write_bytes(data)
        yield path


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (wire, names, server, client, scenario, trace, journal, run_directory)
}
