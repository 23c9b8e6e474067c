"""The backend `interface`: netem on a real interface, for the traffic with one TCP port of a server on another machine.

::

    packets to the server    ─ clsact egress  ─ chatlab-up:   tbf, netem ─ interface
    packets from the server  ─ clsact ingress ─ chatlab-down: tbf, netem ─ this machine

Filters take only these packets out of the interface's way and lead them through an `ifb` device each, which carries the
qdiscs and puts them back. So the interface keeps its own qdisc, and all other traffic knows nothing of this. The `tbf`
cuts what the kernel handles as one packet of 64 KiB (GSO, GRO) into real ones, so that loss is per packet.
"""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from loadtests.errors import LinkError
from loadtests.link.backends import guardian
from loadtests.link.backends.links import Links
from loadtests.link.backends.qdisc import beyond_netem
from loadtests.link.backends.shaping import Shaping
from loadtests.link.measure.calibrate import LinkRow
from loadtests.link.measure.handshakes import Handshakes, added_s, judge, shake_hands
from loadtests.link.model.profile import LinkProfile
from loadtests.link.sandbox.namespaces import run_tool
from loadtests.stalls.intervals import Interval

DEVICES = {("primary", "up"): "chatlab-up", ("primary", "down"): "chatlab-down"}
#: What lies between a packet and its frame, with room for tags.
_FRAME_ROOM_BYTES = 100

Server = tuple[str, int]


def device_commands(mtu_bytes: int) -> list[str]:
    """What makes the devices on which the impairments sit; the interface does not notice."""
    return [
        command
        for device in DEVICES.values()
        for command in (
            f"ip link add name {device} type ifb",
            f"ip link set dev {device} up",
            f"tc qdisc add dev {device} root handle 3: tbf rate 10gbit"
            f" burst {mtu_bytes + _FRAME_ROOM_BYTES} limit {mtu_bytes}",
        )
    ]


def redirect_commands(interface: str, servers: list[Server]) -> list[str]:
    """What leads the packets to and from these servers' ports through the devices."""
    commands = [f"tc qdisc add dev {interface} clsact"]
    for address, port in servers:
        ip, protocol, bits = ("ip6", "ipv6", 128) if ":" in address else ("ip", "ip", 32)
        for hook, end, device in (("egress", "dst", "chatlab-up"), ("ingress", "src", "chatlab-down")):
            commands.append(
                f"tc filter add dev {interface} {hook} protocol {protocol} u32"
                f" match {ip} {end} {address}/{bits} match {ip} {end[0]}port {port} 0xffff match {ip} protocol 6 0xff"
                f" action mirred egress redirect dev {device}"
            )
    return commands


def undo_commands(interface: str) -> list[str]:
    """What gives the interface back."""
    deletions = [f"ip link delete dev {device}" for device in DEVICES.values()]
    return [f"tc qdisc delete dev {interface} clsact", *deletions]


class InterfaceBackend:
    """Impairs the way to a server through a named interface, and gives the interface back whatever happens."""

    name = "interface"
    hosts: tuple[str, ...] = ()
    pid: int | None = None

    def __init__(self, interface: str, servers: list[Server], link: LinkProfile) -> None:
        self._interface = interface
        self._servers = servers
        self._link = link
        self._shaping = Shaping({"primary": link}, DEVICES, ["tc"], parent="3:1")
        self.start = self._shaping.start
        self.stop = self._shaping.stop
        self.changes = self._shaping.changes
        self.stats = self._shaping.stats
        self.late = self._shaping.late
        self._guardian: subprocess.Popen[bytes] | None = None
        self._restoration: guardian.Restoration | None = None

    def open(self) -> None:
        if problem := beyond_netem(self._link):
            raise LinkError(f"{self._interface}: {problem}")
        mtu_bytes = self._mtu_bytes()
        self._check_routes()
        qdiscs = guardian.qdiscs_of(self._interface)
        if taken := [one for one in qdiscs if one.split()[0] in ("clsact", "ingress")]:
            raise LinkError(
                f"{self._interface}: somebody else filters its packets already ({taken[0]}); "
                f"if it is a leftover: tc qdisc delete dev {self._interface} {taken[0].split()[0]}"
            )
        if left := set(DEVICES.values()) & guardian.interfaces():
            raise LinkError(
                f"{self._interface}: another run impairs an interface; "
                f"if it is a leftover: {'; '.join(f'ip link delete dev {device}' for device in sorted(left))}"
            )
        build, redirect = device_commands(mtu_bytes), redirect_commands(self._interface, self._servers)
        undo = undo_commands(self._interface)
        shape = [f"tc {command}" for command in self._shaping.commands()]
        print("\n".join([*build, *shape, *redirect, "and in the end:", *undo]), file=sys.stderr, flush=True)
        self._guard(guardian.Restoration(self._interface, qdiscs, undo, list(DEVICES.values())))
        for command in build:
            _run(command)
        with _explained("netem"):
            self._shaping.begin()
        for command in redirect:
            _run(command)

    def check(self) -> None:
        assert self._guardian is not None, "opened before"
        if self._guardian.poll() is not None:
            raise LinkError(f"the guardian of {self._interface} died; nothing measured since can be believed")
        self._shaping.check()

    def record(self, _file: Path | None) -> None:
        """The kernel carries the packets, and does not tell."""

    def close(self) -> None:
        """Raises LinkError: the interface is not as it was."""
        self._shaping.close()
        if self._guardian is None or self._restoration is None:
            return
        left, _ = self._guardian.communicate()
        problem = left.decode().strip() if self._guardian.returncode >= 0 else guardian.restore(self._restoration)
        if problem:
            raise LinkError(f"{self._interface} could not be restored: {problem}")

    def _mtu_bytes(self) -> int:
        try:
            (device,) = json.loads(run_tool(["ip", "-json", "link", "show", "dev", self._interface]))
        except LinkError:
            names = ", ".join(sorted(guardian.interfaces()))
            raise LinkError(f"{self._interface}: no such interface; there are: {names}") from None
        return int(device["mtu"])

    def _check_routes(self) -> None:
        for address, _ in self._servers:
            (route,) = json.loads(run_tool(["ip", "-json", "route", "get", address]))
            if route["dev"] != self._interface:
                raise LinkError(f"{self._interface}: the way to {address} is through {route['dev']}, not through it")

    def _guard(self, restoration: guardian.Restoration) -> None:
        """Start the process that restores the interface as soon as its pipe to us is closed."""
        self._restoration = restoration
        self._guardian = subprocess.Popen(
            [sys.executable, "-m", guardian.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._guardian.stdin is not None, "a pipe was asked for"
        assert self._guardian.stdout is not None, "a pipe was asked for"
        self._guardian.stdin.write(msgspec.json.encode(restoration) + b"\n")
        self._guardian.stdin.flush()
        if self._guardian.stdout.readline() != b"ready\n":
            raise LinkError(f"{self._interface}: nobody could be found to restore it, so nothing was changed")


class InterfaceLinks(Links):
    """A link through a real interface; the server's machine needs nothing of ours."""

    def __init__(self, link: LinkProfile, backend: InterfaceBackend, server: Server, before: Handshakes) -> None:
        super().__init__({"primary": link}, backend)
        self._server = server
        #: The network without the link.
        self._before = before

    def _calibrate_once(self, disturbances: Callable[[], list[Interval]]) -> list[LinkRow]:
        link = self.links["primary"]
        self.check()
        return judge(link, self._before, shake_hands(self._server, self._before.median_s + added_s(link)[0]))


@contextlib.contextmanager
def open_interface(interface: str, host: str, port: int, link: LinkProfile) -> Iterator[InterfaceLinks]:
    """Impair the way to HOST:PORT, and give the interface back at the end of the `with` block, or of this process.

    Raises:
        LinkError: it cannot be done here; the sentence says why, and nothing is changed.
    """
    servers = _resolved(host, port)
    before = shake_hands(servers[0], expected_s=1.0)
    backend = InterfaceBackend(interface, servers, link)
    with contextlib.ExitStack() as undo:
        undo.callback(backend.close)
        backend.open()
        yield InterfaceLinks(link, backend, servers[0], before)


def _resolved(host: str, port: int) -> list[Server]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LinkError(f"{host}: {error.strerror}") from None
    return [(str(address[0]), port) for *_, address in found]


#: Part of a command → the modules that it needs, and the kernel's options that make them.
_NEEDS = {
    "type ifb": ("ifb", "CONFIG_IFB"),
    " tbf ": ("sch_tbf", "CONFIG_NET_SCH_TBF"),
    "netem": ("sch_netem", "CONFIG_NET_SCH_NETEM"),
    " clsact": ("sch_ingress", "CONFIG_NET_SCH_INGRESS"),
    " u32 ": ("cls_u32 act_mirred", "CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED"),
}
_UNKNOWN = ("unknown", "not found", "not supported", "No such file", "Unknown")


def _run(command: str) -> None:
    with _explained(command):
        run_tool(command.split())


@contextlib.contextmanager
def _explained(command: str) -> Iterator[None]:
    """A LinkError of `command` says what to do about it."""
    try:
        yield
    except LinkError as error:
        if "not permitted" in str(error):
            raise LinkError("only root (CAP_NET_ADMIN) may impair an interface") from error
        modules, options = next(needs for part, needs in _NEEDS.items() if part in command)
        if any(word in str(error) for word in _UNKNOWN):
            raise LinkError(
                f"this kernel lacks what `{command}` needs ({options}); as root: modprobe -a {modules}"
            ) from error
        raise
