"""What the chat tests share: a real server process, a client of raw JSON lines, a loop that waits for conditions."""

import contextlib
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from chat.client.client import ChatClient, Mode
from chat.client.events import Event, FileDone
from chat.net.loop import Loop
from chat.net.transport import Address, Transport, resolve, set_up

#: Unit of all deadlines; raise it on a slow machine.
SECOND = float(os.environ.get("CHAT_TEST_SECOND", "1"))
MODES: list[Mode] = ["single", "standby", "redundant"]


class ServerProcess:
    """`chat-server` on a free port."""

    def __init__(self, host: str = "127.0.0.1", *options: str, port: int = 0, limits: bool = False) -> None:
        command = [sys.executable, "-m", "chat", "serve", "--host", host, "--port", str(port), *options]
        # Tests are no strangers, and all from one address.
        command += [] if limits else ["--no-limits"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self._stderr = self.process.stderr
        line = self._stderr.readline()
        assert line.startswith("listening on "), line
        self.address: Address = (host, int(line.rsplit(":", 1)[1]))
        self._log: list[str] = []
        # Read all along: a pipe that is full would stop the server.
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stderr:
            with self._came:
                self._log.append(line)
                self._came.notify_all()

    def wait_for(self, pattern: str) -> str:
        """The first group of this in the log, once it is there."""
        with self._came:
            found = self._came.wait_for(lambda: re.search(pattern, "".join(self._log)), timeout=10 * SECOND)
        assert found, "".join(self._log)
        return found[1]

    def stop(self) -> tuple[int, str]:
        """SIGTERM; exit code and the rest of its log."""
        self.process.terminate()
        return self.end()

    def end(self) -> tuple[int, str]:
        """Wait for its end; exit code and the rest of its log."""
        self.process.wait(timeout=10 * SECOND)
        self._reader.join()
        self._stderr.close()
        return self.process.returncode, "".join(self._log)


@contextlib.contextmanager
def server_process(
    host: str = "127.0.0.1", *options: str, port: int = 0, limits: bool = False
) -> Iterator[ServerProcess]:
    server = ServerProcess(host, *options, port=port, limits=limits)
    try:
        yield server
    finally:
        if server.process.returncode is None:
            server.stop()


class RawClient:
    """Speaks lines over a blocking socket: what `nc` and other people's programs do."""

    def __init__(self, address: Address, nick: str | None = None) -> None:
        self.sock = socket.create_connection(address, timeout=5 * SECOND)
        self._file = self.sock.makefile("rb")
        self._pings = 0
        self.welcome = {} if nick is None else self.ask("welcome", type="hello", nick=nick)

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, **message: Any) -> None:
        self.send_line(json.dumps(message).encode())

    def send_line(self, line: bytes) -> None:
        self.sock.sendall(line + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next line; None at the end of the stream."""
        line = self._file.readline()
        return json.loads(line) if line else None

    def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Skip to the next message of this type with these fields."""
        return self.until_any(kind, **fields)

    def until_any(self, *kinds: str, **fields: Any) -> dict[str, Any]:
        """Skip to the next message of one of these types with these fields."""
        while (message := self.receive()) is not None:
            if message["type"] in kinds and all(message.get(key) == value for key, value in fields.items()):
                return message
        raise AssertionError(f"the connection ended before any of {kinds} {fields} came")

    def ask(self, answer: str, **message: Any) -> dict[str, Any]:
        self.send(**message)
        return self.until(answer)

    def sync(self) -> list[dict[str, Any]]:
        """Everything that the server had for us before now.

        Answers overtake log lines within a send, so the first pong may come before what was logged before it; the
        second cannot.
        """
        found = []
        for _ in range(2):
            self._pings += 1
            self.send(type="ping", n=self._pings)
            while (message := self.receive()) != {"type": "pong", "n": self._pings}:
                assert message is not None, "the connection ended"
                found.append(message)
        return found


class Clients:
    """ChatClients on one loop, with everything they reported."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.clients: list[ChatClient] = []
        self.events: dict[ChatClient, list[Event]] = {}

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        self.loop.close()

    def add(self, nick: str, *addresses: Address, **options: Any) -> ChatClient:
        """A client that is on its way."""
        events: list[Event] = []
        client = ChatClient(self.loop, nick, *addresses, on_event=events.append, **options)
        self.clients.append(client)
        self.events[client] = events
        client.connect()
        return client

    def join(self, nick: str, *addresses: Address, **options: Any) -> ChatClient:
        """A client with all its connections up."""
        client = self.add(nick, *addresses, **options)
        wanted = 1 if client.mode == "single" else 2
        self.until(lambda: len(client.tcp_info()) == wanted)
        return client

    def of(self, client: ChatClient, kind: type[Any]) -> list[Any]:
        return [event for event in self.events[client] if isinstance(event, kind)]

    def until(self, condition: Callable[[], object], seconds: float = 10) -> None:
        deadline_ns = self.loop.now_ns() + int(seconds * SECOND * 1e9)
        while not condition():
            assert self.loop.now_ns() < deadline_ns, f"not in time: {self.clients}"
            self.loop.run_once(0.05)


class Relay:
    """A TCP relay on the clients' loop, whose connections can be cut: a path that breaks."""

    def __init__(self, loop: Loop, target: Address) -> None:
        self._loop = loop
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._pairs: list[tuple[Transport, Transport]] = []
        #: Whether what comes from the server is thrown away: the connections fall silent.
        self.drop_answers = False
        self._held = False
        self.address: Address = self._listener.getsockname()
        loop.add(self._listener, selectors.EVENT_READ, self._accept)

    def cut(self) -> None:
        """End every connection, in order as far as TCP can tell."""
        for pair in self._pairs:
            for transport in pair:
                transport.close()
        self._pairs.clear()

    def reset(self, index: int | None = None) -> None:
        """Break every connection, or one of them, with resets."""
        chosen = self._pairs if index is None else self._pairs[index : index + 1]
        for pair in [*chosen]:
            for transport in pair:
                transport.abort()
            self._pairs.remove(pair)

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def hold(self, held: bool) -> None:
        """Let nothing through, and tell nobody; or let it through again, with what waited."""
        self._held = held
        for near, far in self._pairs:
            for transport in (near, far):
                if not transport.closed:
                    transport.read_on(not held)

    def hold_answers(self, held: bool) -> None:
        """Like :meth:`hold`, but only what comes from the server, and only on the connections of now."""
        for _, far in self._pairs:
            far.read_on(not held)

    def close(self) -> None:
        self.cut()
        self._loop.remove(self._listener)
        self._listener.close()

    def _accept(self, _events: int) -> None:
        near, _ = self._listener.accept()
        ends: list[Transport] = []
        unsent = (bytearray(), bytearray())
        for index in (0, 1):
            callbacks: dict[str, Any] = {
                "on_data": lambda data, index=index: self._pass_on(data, ends, unsent, index),
                "on_writable": lambda index=index: self._push(ends[index], unsent[index]),
                "on_lost": lambda _, index=index: self._end(ends, index),
            }
            if index == 0:
                set_up(near)
                ends.append(Transport(self._loop, near, **callbacks))
            else:
                # Not waited for: behind a bad link it takes seconds, and everybody else is on this loop too.
                ends.append(Transport.connect(self._loop, resolve(*self._target), **callbacks))
        self._pairs.append((ends[0], ends[1]))
        self.hold(self._held)

    def _pass_on(self, data: bytes, ends: list[Transport], unsent: tuple[bytearray, bytearray], index: int) -> None:
        if index == 0 or not self.drop_answers:
            unsent[1 - index].extend(data)
            self._push(ends[1 - index], unsent[1 - index])

    def _push(self, end: Transport, unsent: bytearray) -> None:
        del unsent[: end.send(unsent)]
        if unsent:
            end.want_writable()

    def _end(self, ends: list[Transport], index: int) -> None:
        """One end is gone: the other one goes the same way."""
        if ends[index].ended_by_peer:
            ends[1 - index].close()
        else:
            ends[1 - index].abort()


def cut(client: ChatClient, name: str) -> None:
    """Break one of its connections under its feet."""
    (path,) = [path for path in client._paths.connections if path.name == name]
    assert path.transport is not None
    path.transport.sock.shutdown(socket.SHUT_RDWR)


def leave(clients: Clients, *leaving: ChatClient) -> None:
    for client in leaving:
        client.leave()
    clients.until(lambda: all(client.closed for client in leaving))


def finish_files(clients: Clients, *both: ChatClient) -> list[FileDone]:
    """What each was told when its file had arrived."""
    clients.until(lambda: all(clients.of(each, FileDone) for each in both), 60)
    return [clients.of(each, FileDone)[-1] for each in both]
