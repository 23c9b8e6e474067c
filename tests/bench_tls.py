"""What TLS costs the server (`make bench`): CPU per delivery and per connection, each in pairs with and without it.

The server has one core to itself, everybody else another one. Members of one room talk with a bounded window, all
receive; then others come and go, each with a handshake of its own. Exit code 1 if a limit is missed.
"""

import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from bench_members import Member, until
from bench_table import Figure, print_table
from chat_helpers import server_process

from chat.net.loop import Loop
from chat.net.tls import client_context
from chat.net.transport import Address

SERVER_CORE, OTHERS_CORE = 0, 1
PAIRS, MEMBERS, SENDERS, WINDOW, TEXT = 5, 100, 4, 16, "x" * 100
WARMUP_S, TALK_S = 0.5, 2.0
VISITS, AT_ONCE = 1_024, 32


class Cost(NamedTuple):
    """What one server was measured to need."""

    us_per_delivery: float
    deliveries_per_s: float
    us_per_connection: float
    connections_per_s: float


class Talk:
    """Members of one room; some talk as fast as their windows allow."""

    def __init__(self, loop: Loop, address: Address, context: ssl.SSLContext | None) -> None:
        self.deliveries = 0
        self._echoes = [0] * MEMBERS
        self._loop = loop
        self.members = [Member(loop, address, number, self._count, context) for number in range(MEMBERS)]
        until(loop, lambda: all(member.welcome for member in self.members))

    def go_on(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for sender in self.members[:SENDERS]:
                if free := WINDOW - (sender.said - self._echoes[sender.number]):
                    sender.say(free, TEXT)
            self._loop.run_once(0.1)

    def _count(self, member: Member, lines: bytes) -> None:
        self.deliveries += lines.count(b'"type":"said"')
        self._echoes[member.number] += lines.count(b'"from":"member%d"' % member.number)


def measure(certificate: Path | None) -> Cost:
    """One server, with this certificate and its key or without TLS."""
    options = () if certificate is None else ("--tls-cert", str(certificate))
    context = None if certificate is None else client_context(str(certificate))
    loop = Loop()
    with server_process("127.0.0.1", *options) as server:
        process = psutil.Process(server.process.pid)
        process.cpu_affinity([SERVER_CORE])
        talk = Talk(loop, server.address, context)
        talk.go_on(WARMUP_S)
        begin, before = _now(process), talk.deliveries
        talk.go_on(TALK_S)
        end, deliveries = _now(process), talk.deliveries - before
        for member in talk.members:
            member.transport.close()
        visits_begin = _now(process)
        for first in range(MEMBERS, MEMBERS + VISITS, AT_ONCE):
            numbers = range(first, first + AT_ONCE)
            visitors = [
                Member(loop, server.address, number, lambda _member, _lines: None, context) for number in numbers
            ]
            until(loop, lambda: all(visitor.welcome for visitor in visitors))  # noqa: B023
            for visitor in visitors:
                visitor.transport.close()
        visits_end = _now(process)
    loop.close()
    return Cost(
        us_per_delivery=(end.cpu_s - begin.cpu_s) / deliveries * 1e6,
        deliveries_per_s=deliveries / (end.time_s - begin.time_s),
        us_per_connection=(visits_end.cpu_s - visits_begin.cpu_s) / VISITS * 1e6,
        connections_per_s=VISITS / (visits_end.time_s - visits_begin.time_s),
    )


class _Now(NamedTuple):
    time_s: float
    cpu_s: float


def _now(process: psutil.Process) -> _Now:
    cpu = process.cpu_times()
    return _Now(time.monotonic(), cpu.user + cpu.system)


def make_certificate(folder: Path) -> Path:
    """A self-signed one with its key, P-256."""
    file = folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    try:
        subprocess.run([*command, "-keyout", str(file), "-out", str(file)], check=True, capture_output=True)
    except FileNotFoundError:
        sys.exit("bench: there is no openssl, which makes the certificate: apt-get install openssl")
    return file


def main() -> int:
    """Print the table of figures and limits."""
    os.sched_setaffinity(0, {OTHERS_CORE})
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        pairs = [(measure(None), measure(certificate)) for _ in range(PAIRS)]
    plain, private = zip(*pairs, strict=True)
    ratios = [
        [getattr(b, name) / getattr(a, name) for a, b in pairs] for name in ("us_per_delivery", "us_per_connection")
    ]
    figures = (
        Figure("CPU per delivery, TLS : plain", ratios[0], 3),
        Figure("CPU per connection, TLS : plain", ratios[1], 8),
        Figure("deliveries per second, plain", [cost.deliveries_per_s for cost in plain], 100_000, at_most=False),
        Figure("deliveries per second, TLS", [cost.deliveries_per_s for cost in private], 100_000, at_most=False),
        Figure("connections per second, TLS", [cost.connections_per_s for cost in private], 300, at_most=False),
    )
    return 0 if print_table(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
