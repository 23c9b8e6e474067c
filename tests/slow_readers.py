"""Slow readers, and many: what they cost the server's memory, and everybody else's time: `python FILE`.

Twice the same: one talker pushes 500 MB through the lobby, and some clients chat beside it. The second time a crowd is
there as well: one client that never reads, and 10,000 sessions that read 1 kB a second. Exits 1 if the server's memory
goes over its bound, or if the chatting clients' p99 is more than 1.5 times that of the first time.

Best on a machine that does nothing else: a p99 of milliseconds feels every other process.

The bound: what the server documents for its logs and for each connection (chat/README.md).
"""

import argparse
import contextlib
import itertools
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
from chat_helpers import RawClient, ServerProcess

from chat.client.client import ChatClient
from chat.client.events import Echoed, Event, Registered
from chat.net.loop import Loop
from chat.net.transport import Address

CHATTERS, CHAT_PER_S, TEXT_BYTES = 10, 10.0, 8_000
#: The lobby's log, and its list while it is cut.
LOGS_BYTES = 24 << 20
#: A session with its connection takes 5 kB, and the rest of a line up to 8 kB, which an allocator may double.
SESSION_BYTES = 24 << 10
P99_LIMIT = 1.5
#: Until the buffers of the crowd are full, it takes everything that is said, and is no slower than anybody else.
WARM_UP_BYTES = 20_000_000


def crowd(server: Address, sessions: int) -> None:
    """Sessions that read 1 kB each second, until killed; says when all have registered."""
    readers = []
    for number in range(sessions):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(server)
        sock.sendall(b'{"type":"hello","nick":"slow%d"}\n' % number)
        assert sock.recv(1) == b"{"
        sock.setblocking(False)
        readers.append(sock)
    print("registered", flush=True)
    begun_s = time.monotonic()
    for turn in itertools.count():
        with contextlib.suppress(OSError):  # nothing there, or the server is gone
            readers[turn % sessions].recv(1000)
        time.sleep(max(0.0, begun_s + turn / sessions - time.monotonic()))  # the pace is what they are


@contextlib.contextmanager
def crowded(server: Address, sessions: int) -> Iterator[None]:
    """One that never reads and a crowd that reads slowly."""
    with RawClient(server, "never"):
        command = [sys.executable, __file__, "--crowd", str(server[1]), "--sessions", str(sessions)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"registered\n"
            yield
        finally:
            process.kill()
            process.communicate()


class Chat:
    """A talker and some who chat, on one loop."""

    def __init__(self, server: ServerProcess, megabytes: int, megabytes_per_s: float) -> None:
        self.response_ms: list[float] = []
        self.worst_bytes = 0
        self._process = psutil.Process(server.process.pid)
        self._loop = Loop()
        self._registered = 0
        self._measured = megabytes * 1_000_000 // TEXT_BYTES
        self._left = self._measured + WARM_UP_BYTES // TEXT_BYTES
        self._pause_s = TEXT_BYTES / (megabytes_per_s * 1e6)
        self._talker, *self._chatters = [
            ChatClient(self._loop, f"quick{number}", server.address, on_event=self._on_event)
            for number in range(1 + CHATTERS)
        ]

    def run(self) -> None:
        for client in (self._talker, *self._chatters):
            client.connect()
        while self._registered <= CHATTERS:
            self._loop.run_once()
        self._at(self._loop.now_ns(), self._pause_s, self._talk)
        for chatter in self._chatters:
            self._at(self._loop.now_ns(), 1 / CHAT_PER_S, lambda client=chatter: client.say("hello"))
        self._at(self._loop.now_ns(), 0.2, self._weigh)
        while self._left or self._talker.pending:
            self._loop.run_once()
        for client in (self._talker, *self._chatters):
            client.close()
        self._loop.close()

    def _at(self, when_ns: int, period_s: float, action: Callable[[], object]) -> None:
        """On an absolute schedule, however late we are."""

        def again() -> None:
            if self._left:
                action()
                self._at(when_ns + int(period_s * 1e9), period_s, action)

        self._loop.call_at(when_ns, again)

    def _talk(self) -> None:
        if self._talker.pending < 500:  # else the server cannot keep up, and takes longer
            self._talker.say("x" * TEXT_BYTES)
            self._left -= 1

    def _weigh(self) -> None:
        self.worst_bytes = max(self.worst_bytes, self._process.memory_info().rss)

    def _on_event(self, event: Event) -> None:
        match event:
            case Registered():
                self._registered += 1
            case Echoed(text="hello") if self._left < self._measured:
                self.response_ms.append(event.service_time_ns / 1e6)


def main() -> int:
    parser = argparse.ArgumentParser(description="What slow readers cost.")
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rate", type=float, default=8.0, help="megabytes per second")
    parser.add_argument("--crowd", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.crowd:
        crowd(("127.0.0.1", options.crowd), options.sessions)
    p99_ms, grown_bytes = [], 0
    for with_crowd in (False, True):
        server = ServerProcess()
        before_bytes = psutil.Process(server.process.pid).memory_info().rss
        with crowded(server.address, options.sessions) if with_crowd else contextlib.nullcontext():
            chat = Chat(server, options.megabytes, options.rate)
            chat.run()
        server.stop()
        grown_bytes = chat.worst_bytes - before_bytes
        p50, p99 = np.quantile(chat.response_ms, [0.5, 0.99])
        p99_ms.append(p99)
        what = f"{options.sessions} slow readers and one that never reads" if with_crowd else "without slow readers"
        print(
            f"{what}: {len(chat.response_ms)} messages, p50 {p50:.2f} ms, p99 {p99:.2f} ms; "
            f"server memory + {grown_bytes >> 20} MiB",
            flush=True,
        )
    bound_bytes = LOGS_BYTES + (options.sessions + 1) * SESSION_BYTES
    ratio = p99_ms[1] / p99_ms[0]
    print(f"memory bound {bound_bytes >> 20} MiB; p99 ratio {ratio:.2f}, at most {P99_LIMIT}")
    return 0 if grown_bytes < bound_bytes and ratio <= P99_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
