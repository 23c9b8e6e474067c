"""What is fuzzed: functions that take any bytes and must not raise, but for what they say.

Each is given to hypothesis (`tests/test_fuzz.py`, and `python tests/fuzz`) or, where it is installed, to atheris, which
knows what code an input reaches. What was found once is in `tests/fuzz/corpus` and is tried first ever after.
"""

import contextlib
import logging
import re
import selectors
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from mutate import NEXT

from chat.client.events import Closed, Event
from chat.client.paths import Mode
from chat.client.transcript import Transcript
from chat.console.commands import enter
from chat.console.console import Console
from chat.net.loop import Loop
from chat.net.transport import Address
from chat.protocol.errors import Refusal
from chat.protocol.limits import PUBLIC_LIMITS
from chat.protocol.messages import Bye
from chat.protocol.names import clean_nick, clean_room, fold, skeleton
from chat.protocol.wire import DOWN, UP, BadLine, LineReader, encode
from chat.server.journal import Journal, JournalError
from chat.server.server import ChatServer
from chat.words import visible
from loadtests.analysis.compare import compare_runs
from loadtests.analysis.comparison_text import as_text
from loadtests.analysis.read import open_run
from loadtests.analysis.report import answer
from loadtests.analysis.stats import presentable, summarise
from loadtests.analysis.verdict import judge
from loadtests.commands.report import shown
from loadtests.config.yamlfile import Document
from loadtests.data import shipped
from loadtests.errors import ConfigError, HarnessError
from loadtests.link.model.trace import read_trace
from loadtests.samples import TABLES
from loadtests.scenario.scenario import decode

#: Turns of a loop in which a peer does all that it is going to do with an input.
TURNS = 40
#: How long something that must happen is waited for.
PATIENCE_S = 5.0

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
    said = str(error)
    if isinstance(error, JournalError):  # others are shown by a command that sees to it
        assert said.isprintable(), f"a sentence may change a terminal: {said!r}"
    assert str(path) in said, f"a user is not told which file is meant: {said}"
    assert len(said) < 1_000 + said.count(str(path)) * len(str(path)), f"a sentence quotes too much: {said}"


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


#: What only the witness is to hear.
_KEY, _WORDS = b"known to the witness alone", b"said to the witness alone"
_TOKEN = re.compile(rb'"token":"([^"]+)"')


class SwiftLoop(Loop):
    """A loop that need not wait for its timers."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._skipped_ns = 0

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC in ns, and what was skipped."""
        return super().now_ns() + self._skipped_ns

    def turn(self, times: int = 1) -> None:
        """Without waiting."""
        for _ in range(times):
            self.run_once(0)

    def until(self, condition: Callable[[], bool]) -> None:
        """Turns until it holds; what is on its way may take its time on a busy machine."""
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, f"in vain: {self!r}"
            self.run_once(0.001)

    def skip(self) -> None:
        """Go on when the next timer is due."""
        deadline_ns = self.next_deadline_ns()
        if deadline_ns is not None:
            self._skipped_ns += max(0, deadline_ns - self.now_ns())
        self.turn()


def server(data: bytes) -> None:
    """Whatever strangers send, those who behave are served, alone hear what is theirs, and nothing is left of the rest.

    The first four pieces of an input come over a connection each, those after them over the same in turn; for an empty
    one, time passes. `$TOKEN` is the token that was heard last.
    """
    with contextlib.closing(SwiftLoop()) as loop, contextlib.ExitStack() as sockets:
        serving = ChatServer(loop, "127.0.0.1", 0, limits=PUBLIC_LIMITS)
        sockets.enter_context(_ending(loop, serving))

        def connection() -> socket.socket:
            sock = sockets.enter_context(socket.create_connection(serving.address))
            sock.setblocking(False)
            return sock

        witness = connection()
        witness.sendall(b'{"type":"hello","nick":"witness","key":"%s"}\n' % _KEY)
        witness.sendall(b'{"type":"tell","to":"witness","text":"%s","id":1}\n' % _WORDS)
        heard = bytearray()

        def is_told(word: bytes) -> bool:
            heard.extend(_heard(witness))
            return word in heard

        loop.until(lambda: is_told(_WORDS))
        secrets = [_KEY, _WORDS, *_TOKEN.findall(heard)]
        strangers: list[socket.socket] = []
        token = b""
        for number, piece in enumerate(data.split(NEXT)[:16]):
            if number < 4:
                strangers.append(connection())
            stranger = strangers[number % 4]
            with contextlib.suppress(BlockingIOError, ConnectionError):
                stranger.send(piece.replace(b"$TOKEN", token))
            loop.turn(4)
            answers = _heard(stranger)
            assert not any(secret in answers for secret in secrets)
            token = (_TOKEN.findall(answers) or [token])[-1]
            if not piece:
                loop.skip()
        for stranger in strangers:
            stranger.close()

        def is_alone() -> bool:
            loop.skip()
            heard.extend(_heard(witness))
            return serving.hub.nicks == ["witness"] and len(serving.lags()) == 1

        loop.until(is_alone)
        assert not serving.strangers
        assert "0 transfer(s)" in repr(serving.hub.relay)
        assert len([*serving.hub.rooms]) == 1, "a room is left in which nobody is"
        witness.sendall(b'{"type":"ping","n":4711}\n')
        loop.until(lambda: is_told(b'"n":4711'))


@contextlib.contextmanager
def _ending(loop: SwiftLoop, serving: ChatServer) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(JournalError):
            serving.close("done")
            loop.turn(4)
        for peer in [*serving._peers.values()]:
            peer.transport.close()


def _heard(sock: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError, ConnectionError):
        return sock.recv(1 << 20)
    return b""


#: What the person at the client enters.
ENTERED = (
    *("hello", "/join tea", "/me waves", "/send ben victim", "/accept", "/msg ben hello", "/last 5", "/topic", "/who"),
    *("/rooms", "/away for tea", "/nick zoe", "/stats", "/connections", "/leave tea", "/ignore ben", "/topic a"),
    *("hello", "/cancel", "/reconnect", "/accept 1", "hello"),
)


class Watched(Console):
    """A console that holds its client to its word, and shows nothing that could act on a terminal."""

    def __init__(self, loop: Loop, server: Address, mode: Mode, downloads: Path) -> None:
        self.heard: list[Event] = []
        record = Transcript(StringIO(newline=""))
        super().__init__(loop, "ana", server, None, mode, show=self._show, transcript=record, downloads=downloads)
        self.is_watched = mode == "standby"

    def _show(self, line: str, style: str = "", speaker: str = "", *, is_for_us: bool = False) -> None:
        assert visible(line) == line

    def _event(self, event: Event) -> None:
        assert not any(isinstance(each, Closed) for each in self.heard), "Closed is the last event"
        self.heard.append(event)
        super()._event(event)


def client(data: bytes) -> None:
    """Whatever a server sends, a client ends in order, stays inside its folder, and has two connections at most.

    Each connection that the client makes gets a piece of the input, line by line; after that, time passes. A first
    piece that says so makes it one in `standby`.
    """
    loop = SwiftLoop()
    pieces = data.split(NEXT)
    mode: Mode = "standby" if pieces[0] == b"standby" else "redundant"
    lines = iter([piece.splitlines(keepends=True) for piece in pieces[mode == "standby" :]])
    with contextlib.closing(loop), contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "victim").write_text("untouched")
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        console = Watched(loop, listener.getsockname(), mode, folder / "in")
        stack.callback(console.client.close)
        console.client.connect()
        entered = iter(ENTERED)
        held: dict[socket.socket, list[bytes]] = {}
        for _ in range(TURNS):
            loop.turn()
            with contextlib.suppress(BlockingIOError):
                held[stack.enter_context(listener.accept()[0])] = next(lines, [])
            for sock, rest in [*held.items()]:
                sock.setblocking(False)
                step = -(-len(rest) // (TURNS // 2))
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    sock.send(b"".join(rest[:step]))
                del rest[:step]
                if _has_ended(sock):
                    del held[sock]
            assert len(held) <= 2, "a client of two connections has more"
            if console.client.registered:
                enter(console, next(entered, "hello").replace("victim", str(folder / "victim")))
            if not any(held.values()):
                loop.skip()
        console.client.close()
        assert console.client.closed
        assert isinstance(console.heard[-1], Closed)
        assert {path.name for path in folder.iterdir()} <= {"victim", "in"}
        assert (folder / "victim").read_text() == "untouched"


def _has_ended(sock: socket.socket) -> bool:
    """Whether the other end has closed it; what it said before is read, or its end would not be seen."""
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


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
    """A journal is taken and served, or refused in a sentence: any bytes, or what somebody has altered by SQL."""
    is_file = data.startswith(b"SQLite")
    with _file(data if is_file else b"") as path:
        if not is_file:
            _alter(path, data.decode(errors="replace"))
        try:
            with contextlib.closing(Journal(str(path))) as opened:
                _serve(opened)
        except JournalError as error:
            _names(path, error)


def _serve(journal: Journal) -> None:
    with contextlib.closing(SwiftLoop()) as loop:
        serving = ChatServer(loop, "127.0.0.1", 0, journal=journal)
        with socket.create_connection(serving.address) as visitor, _ending(loop, serving):
            visitor.setblocking(False)
            visitor.sendall(
                b'{"type":"hello","nick":"ana"}\n{"type":"join","room":"tea"}\n{"type":"last","lines":99}\n'
                b'{"type":"last","lines":99,"room":"tea"}\n{"type":"rooms"}\n{"type":"say","text":"x"}\n{"type":"bye"}\n'
            )
            reader, answers = LineReader(DOWN, 1 << 20), []

            def is_served() -> bool:
                answers.extend(reader.feed(_heard(visitor)))
                return any(isinstance(answer, Bye) for answer in answers)

            loop.until(is_served)
            assert not [answer for answer in answers if isinstance(answer, BadLine)]


def _alter(path: Path, statements: str) -> None:
    Journal(str(path)).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        database.set_progress_handler(lambda: 1, 1_000_000)
        for statement in statements.split(";\n"):
            with contextlib.suppress(sqlite3.Error, sqlite3.Warning, ValueError):
                database.execute(statement)


def run_directory(data: bytes) -> None:
    """A run of somebody else's is summarised, judged and compared, or refused in a sentence that names the file.

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
            summary = summarise(run)
            reference = open_run(shipped("results") / "reference", with_disturbed=False)
            compared = as_text(compare_runs(reference, run), 0.05)
            verdict = judge(run)
            said = [shown(presentable(run, summary)), str(verdict), verdict.headline, *answer(run, summary), compared]
        except HarnessError as error:
            _names(Path(folder), error)
        else:
            assert all(line.isprintable() for line in "\n".join(said).splitlines())


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input.yaml"
        path.write_bytes(data)
        yield path


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (wire, names, server, client, scenario, trace, journal, run_directory)
}
