"""What attackers do to everybody else's talk (`make bench`): p99 of 50 members who behave, beside the same undisturbed.

One server as a stranger finds it, with its usual limits, on one core; all others on the other one, the attackers in a
process of their own that runs when the members do not. For each attack it prints the p99 of the response time before it
and during it, and how many deliveries did not come. Exit code 1: p99 is above twice that before + 5 ms, or a delivery
is missing.

    python tests/bench_floods.py [--seconds 10] [--attack NAME ...]
"""

import argparse
import contextlib
import json
import os
import re
import resource
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench_members import Member, until
from chat_helpers import server_process

from chat.net.loop import Loop
from chat.net.transport import Address

SERVER_CORE, OTHERS_CORE = 0, 1
MEMBERS, MESSAGES_PER_S = 50, 50
#: So many attackers have one address; the server lets 256 in.
PER_ADDRESS = 200
MOST_TIMES, MOST_MORE_MS = 2.0, 5.0
_FROM_MEMBER = b'"from":"member'
_SAID = re.compile(rb'"from":"member(\d+)","text":"(\d+) ')
#: What an attacker sends next, made of its number and of how often it has sent before.
Lines = Callable[[int, int], bytes]


class Attack(NamedTuple):
    """So many connections that send such lines."""

    connections: int
    #: None: none at all.
    lines: Lines | None
    reads: bool = True
    says_hello: bool = True


def repeated(**message: object) -> Lines:
    """The same message, a hundred at a time."""
    lines = (json.dumps(message) + "\n").encode() * 100
    return lambda _number, _before: lines


OFFER = {"type": "file_offer", "to": "member1", "name": "a", "size": 1, "sha256": "0" * 64}
ROOMS = [f"r{number}" for number in range(16)]
INTO_ROOMS = b"".join(b'{"type":"join","room":"%s"}\n' % room.encode() for room in ROOMS)
IN_ROOMS = b"".join(b'{"type":"say","room":"%s","text":"x"}\n' % room.encode() for room in ROOMS)
ATTACKS: dict[str, Attack] = {
    "one floods": Attack(1, repeated(type="say", text="x" * 100)),
    "50 flood": Attack(50, repeated(type="say", text="x" * 100)),
    "50 change their names": Attack(50, lambda n, k: b'{"type":"nick","nick":"evil%dx%d"}\n' % (n, k)),
    "50 join and leave": Attack(
        50, lambda n, k: b'{"type":"join","room":"r%d"}\n{"type":"leave","room":"r%d"}\n' % ((n + k) % 50, (n + k) % 50)
    ),
    "50 ask": Attack(50, repeated(type="who")),
    "50 ask for the last lines": Attack(50, repeated(type="last", lines=1_000)),
    "50 offer files": Attack(50, repeated(**OFFER)),
    "200 talk in the same 16 rooms": Attack(200, lambda _n, k: IN_ROOMS if k else INTO_ROOMS),
    "10,000 half open": Attack(10_000, None, says_hello=False),
    "1,000 send garbage": Attack(1_000, lambda _n, _k: os.urandom(4_096) + b"\n", says_hello=False),
    "1,000 send garbage within a session": Attack(1_000, lambda _n, _k: b"x\n" * 2_000),
    "500 never read": Attack(500, repeated(type="last", lines=1_000), reads=False),
}


class Attacker:
    """One connection, made anew whenever the server ends it."""

    def __init__(self, selector: selectors.BaseSelector, attack: Attack, number: int, server: Address) -> None:
        self._selector, self._attack, self._number, self._server = selector, attack, number, server
        self._times = 0
        self._connect()

    def _connect(self) -> None:
        self._sock = socket.socket()
        self._sock.setblocking(False)
        # Without this the system could run out of ports: each address has few, which is long in TIME-WAIT.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind((f"127.0.{self._number // PER_ADDRESS + 1}.1", 0))
        with contextlib.suppress(BlockingIOError):
            self._sock.connect(self._server)
        self._rest = b'{"type":"hello","nick":"evil%d"}\n' % self._number if self._attack.says_hello else b""
        writes = self._attack.lines is not None
        self._selector.register(
            self._sock, selectors.EVENT_READ * self._attack.reads | selectors.EVENT_WRITE * writes, self
        )

    def act(self, events: int) -> None:
        """Send and read what the kernel lets us."""
        try:
            if events & selectors.EVENT_READ and not self._sock.recv(65_536):
                raise ConnectionError
            if events & selectors.EVENT_WRITE and self._attack.lines is not None:
                if not self._rest:
                    self._rest = self._attack.lines(self._number, self._times)
                    self._times += 1
                self._rest = self._rest[self._sock.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError:
            self._selector.unregister(self._sock)
            self._sock.close()
            self._connect()


def attack(name: str, server: Address) -> None:
    """Go on until killed."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    selector = selectors.DefaultSelector()
    chosen = ATTACKS[name]
    for number in range(chosen.connections):
        Attacker(selector, chosen, number, server)
        for key, events in selector.select(0):
            key.data.act(events)
    print("all there", flush=True)
    while True:
        for key, events in selector.select():
            key.data.act(events)


@contextlib.contextmanager
def attacked(name: str, server: Address) -> Iterator[None]:
    """While attackers do their worst."""
    command = [sys.executable, __file__, "--server", "{}:{}".format(*server), "--attack", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


class Talk:
    """Members who take turns at saying something, at a steady rate."""

    def __init__(self, loop: Loop, server: Address) -> None:
        self._loop = loop
        self._sent_ns: dict[tuple[int, int], int] = {}
        self._times_ms: list[float] = []
        self._deliveries = 0
        self._members = [Member(loop, server, number, self._hear) for number in range(MEMBERS)]
        until(loop, lambda: all(member.welcome for member in self._members))

    def measure(self, seconds: float) -> tuple[float, int]:
        """p99 of the response times in ms, and how many deliveries did not come."""
        self._sent_ns.clear()
        self._times_ms.clear()
        self._deliveries = 0
        count = int(seconds * MESSAGES_PER_S)
        begin_ns = self._loop.now_ns()
        for number in range(count):
            self._loop.call_at(begin_ns + round(number * 1e9 / MESSAGES_PER_S), lambda number=number: self._say(number))
        end_ns = begin_ns + round((seconds + 10) * 1e9)
        while self._deliveries < count * MEMBERS and self._loop.now_ns() < end_ns:
            self._loop.run_once(0.1)
        lost = count - len(self._times_ms)
        times_ms = sorted([*self._times_ms, *[float("inf")] * lost])
        return times_ms[int(count * 0.99)], count * MEMBERS - self._deliveries

    def _say(self, number: int) -> None:
        member = self._members[number % MEMBERS]
        member.say(1, "hello")
        self._sent_ns[member.number, member.said] = self._loop.now_ns()

    def _hear(self, member: Member, lines: bytes) -> None:
        now_ns = self._loop.now_ns()
        at = -1
        while (at := lines.find(_FROM_MEMBER, at + 1)) >= 0:  # in a flood, far faster than the expression alone
            found = _SAID.match(lines, at)
            assert found is not None
            speaker, number = map(int, found.groups())
            sent_ns = self._sent_ns.get((speaker, number))
            if sent_ns is not None:
                self._deliveries += 1
                if speaker == member.number:
                    self._times_ms.append((now_ns - sent_ns) / 1e6)


def main() -> int:
    """Exit code 1 if an attack does more than it may."""
    parser = argparse.ArgumentParser(description="What attackers do to everybody else's talk.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of talk under each attack")
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="only this one; may be repeated")
    parser.add_argument("--server", help=argparse.SUPPRESS)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if options.server:
        host, _, port = options.server.rpartition(":")
        attack(options.attack[0], (host, int(port)))
    good = True
    with contextlib.suppress(
        PermissionError
    ):  # that attackers keep the kernel busy on this core is not the server's doing
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    for name in options.attack or ATTACKS:
        with server_process("127.0.0.1", limits=True) as server:
            os.sched_setaffinity(server.process.pid, {SERVER_CORE})
            os.sched_setaffinity(0, {OTHERS_CORE})
            loop = Loop()
            talk = Talk(loop, server.address)
            before_ms, _ = talk.measure(options.seconds)
            with attacked(name, server.address):
                during_ms, missing = talk.measure(options.seconds)
        within = during_ms <= MOST_TIMES * before_ms + MOST_MORE_MS and not missing
        good &= within
        print(
            f"{name:38} p99 {before_ms:6.1f} → {during_ms:6.1f} ms, {missing} deliveries missing"
            f"{'' if within else '  MISSED'}",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
