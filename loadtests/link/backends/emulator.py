"""The backend for every Linux kernel: a process of ours stands between two TUN devices and is the link.

::

    client ─ TUN ── ferry (both pipelines) ── TUN ─ server

TUN rather than veth: a packet that reaches the ferry has left the sender's socket for good, so TCP's own limit on
queued packets (TCP small queues) does not see the delay line, and packets are at most MTU long, so loss is per packet.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from loadtests.errors import LinkError
from loadtests.link.backends import ferry
from loadtests.link.backends.backend import LatePeriod, LinkChange, LinkStats
from loadtests.link.model.profile import LinkProfile
from loadtests.link.sandbox.namespaces import Namespace, run_tool
from loadtests.link.sandbox.topology import CLIENT, SERVER, client_address, server_address

#: Packets that may wait for the ferry; the default of 500 loses bursts.
_TUN_QUEUE_PACKETS = 10_000


def device_commands(path: str, address: str) -> list[str]:
    """The `ip` commands that bring up one end of a path."""
    return [
        f"link set {path} mtu 1500 txqueuelen {_TUN_QUEUE_PACKETS} up",
        f"address add {address}/24 dev {path}",
    ]


class EmulatorBackend:
    """Starts the ferry, asks it for its counters, and notices when it dies."""

    name = "emulator"
    hosts: tuple[str, ...] = (CLIENT, SERVER)

    def __init__(self, links: dict[str, LinkProfile], seed: int) -> None:
        self._order = ferry.Order(links, seed)
        self._ferry: subprocess.Popen[bytes] | None = None
        self.pid: int | None = None

    def open(self) -> None:
        self._ferry = subprocess.Popen(
            [sys.executable, "-m", ferry.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for the work on the link; the link outlives it
        )
        self.pid = self._ferry.pid
        answer = self._ask(msgspec.json.encode(self._order)).decode().strip()
        if answer != "ready":
            remedy = "chmod 0666 /dev/net/tun" if os.path.exists("/dev/net/tun") else "modprobe tun"
            raise LinkError(f"the emulator cannot open its devices: {answer}; as root: {remedy}")
        for path in self._order.links:
            Namespace(CLIENT).ip(device_commands(path, client_address(path)))
            Namespace(SERVER).ip(device_commands(path, server_address(path)))

    def check(self) -> None:
        assert self._ferry is not None, "opened before"
        code = self._ferry.poll()
        if code is not None:
            raise LinkError(f"the link emulator died (exit code {code}); nothing measured since can be believed")

    def start(self, zero_ns: int) -> None:
        self._ask(f"start {zero_ns}".encode())

    def stop(self) -> None:
        self._ask(b"stop")

    def changes(self) -> list[LinkChange]:
        return msgspec.json.decode(self._ask(b"changes"), type=list[LinkChange])

    def stats(self) -> list[LinkStats]:
        carried = msgspec.json.decode(self._ask(b"stats"), type=list[LinkStats])
        return [msgspec.structs.replace(one, dropped_packets=one.dropped_packets + _overflowed(one)) for one in carried]

    def late(self) -> list[LatePeriod]:
        return msgspec.json.decode(self._ask(b"late"), type=list[LatePeriod])

    def record(self, file: Path | None) -> None:
        self._ask(f"record {file.absolute()}".encode() if file else b"record")

    def close(self) -> None:
        if self._ferry is not None:
            self._ferry.kill()
            self._ferry.communicate()

    def _ask(self, line: bytes) -> bytes:
        """Send the ferry a line and read its answer; raises LinkError: it is dead."""
        assert self._ferry is not None, "opened before"
        assert self._ferry.stdin is not None, "a pipe was asked for"
        assert self._ferry.stdout is not None, "a pipe was asked for"
        try:
            self._ferry.stdin.write(line + b"\n")
            self._ferry.stdin.flush()
            answer = self._ferry.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            self._ferry.wait()
            self.check()
        return answer


def _overflowed(stats: LinkStats) -> int:
    """Packets lost in front of the ferry, because it did not read fast enough."""
    sender = CLIENT if stats.direction == "up" else SERVER
    (device,) = json.loads(run_tool(["ip", "-n", sender, "-json", "-statistics", "link", "show", "dev", stats.path]))
    return int(device["stats64"]["tx"]["dropped"])
