"""The backend that uses the kernel: `tc netem` on a router between client and server.

::

    client ─ veth ─ router ─ veth ─ server

The impairments sit where the router sends: up on its veth to the server, down on its veth to the client. On the
sender's own veth TCP's limit on queued packets (TCP small queues) would see the delay line and hold the sender back.
Neighbours are fixed, so no ARP crosses the link; `gso_max_segs 1` keeps packets at most MTU long, so that loss is per
packet.
"""

import heapq
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from loadtests.errors import LinkError
from loadtests.link.backend import LinkChange, LinkStats
from loadtests.link.namespaces import Namespace, run_tool
from loadtests.link.profile import ETHERNET_HEADER_BYTES, PATHS, Direction, LinkProfile
from loadtests.link.qdisc import beyond_netem, netem_tree
from loadtests.link.topology import CLIENT, ROUTER, SERVER, client_address, server_address


def kernel_has_netem() -> bool:
    """Whether this kernel has netem, found out by using it on the laboratory's own loopback."""
    try:
        run_tool(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"])
    except LinkError:
        return False
    run_tool(["tc", "qdisc", "delete", "dev", "lo", "root"])
    return True


def router_device(end: str, path: str) -> str:
    """The router's veth on `path` towards the client or the server."""
    return f"{end[0]}-{path}"


def mac_address(host: str, end: str, path: str) -> str:
    """The MAC address that the host at one side (`end` or the router) of a veth pair has."""
    return f"02:00:00:{PATHS.index(path):02x}:{(CLIENT, SERVER).index(end):02x}:{int(host == ROUTER):02x}"


def end_commands(end: str, path: str) -> list[str]:
    """The `ip` commands in the namespace `end` that join it to the router."""
    own, peer = client_address(path), server_address(path)
    if end == SERVER:
        own, peer = peer, own
    router = router_device(end, path)
    return [
        f"link add name {path} address {mac_address(end, end, path)} type veth"
        f" peer name {router} address {mac_address(ROUTER, end, path)} netns {ROUTER}",
        f"link set {path} mtu 1500 gso_max_segs 1 up",
        f"address add {own}/24 dev {path}",
        f"neighbour add {peer} lladdr {mac_address(ROUTER, end, path)} dev {path} nud permanent",
    ]


def router_commands(end: str, path: str) -> list[str]:
    """The `ip` commands in the router that send on to `end` what is for its address."""
    address = client_address(path) if end == CLIENT else server_address(path)
    device = router_device(end, path)
    return [
        f"link set {device} mtu 1500 gso_max_segs 1 up",
        f"route add {address}/32 dev {device}",
        f"neighbour add {address} lladdr {mac_address(end, end, path)} dev {device} nud permanent",
    ]


class NetemBackend:
    """Builds the router and its qdiscs, and reads back what the kernel made of them."""

    name = "netem"
    hosts: tuple[str, ...] = (CLIENT, ROUTER, SERVER)
    pid: int | None = None

    def __init__(self, links: dict[str, LinkProfile], seed: int) -> None:
        """`seed` changes nothing: netem draws its own randomness, and most versions of `tc` cannot seed it."""
        self._links = links
        #: (path, direction) → the router's device that sends that way.
        self._devices = {
            (path, direction): router_device(end, path)
            for path in links
            for direction, end in (("up", SERVER), ("down", CLIENT))
        }
        self._router = Namespace(ROUTER)
        #: (path, direction) → what it does now.
        self._now: dict[tuple[str, str], Direction] = {}
        self._changes: list[LinkChange] = []
        #: Between a change and a look at it.
        self._lock = threading.Lock()
        self._timelines: threading.Thread | None = None
        self._ended = threading.Event()
        self._problem: LinkError | None = None

    def open(self) -> None:
        for path, link in self._links.items():
            if problem := beyond_netem(link):
                raise LinkError(f"link {path}: {problem}; use the emulator")
        self._router.sysctl("net/ipv4/ip_forward", "1")
        for path in self._links:
            for end in (CLIENT, SERVER):
                Namespace(end).ip(end_commands(end, path))
                self._router.ip(router_commands(end, path))
        self._set(self._beginning())
        self.check()

    def check(self) -> None:
        if self._problem:
            raise self._problem
        with self._lock:
            for way, direction in self._now.items():
                device = self._devices[way]
                made = {qdisc["handle"]: qdisc["options"] for qdisc in self._read_back(device)}
                for wanted in netem_tree(direction):
                    problem = wanted.difference(made.get(wanted.handle))
                    if problem:
                        raise LinkError(f"netem on {device} is not what was asked for: {problem}")

    def start(self, zero_ns: int) -> None:
        self.stop()
        self._changes.clear()
        self._ended.clear()
        self._timelines = threading.Thread(target=self._follow, args=(zero_ns,), name="timelines", daemon=True)
        self._timelines.start()

    def stop(self) -> None:
        if self._timelines:
            self._ended.set()
            self._timelines.join()
            self._timelines = None
            self._set(self._beginning())

    def changes(self) -> list[LinkChange]:
        return list(self._changes)

    def _beginning(self) -> dict[tuple[str, str], Direction]:
        return {(path, way): getattr(self._links[path], way) for path, way in self._devices}

    def _set(self, directions: dict[tuple[str, str], Direction]) -> None:
        """Every parameter of these directions, whichever of them is new."""
        commands = [
            qdisc.command(self._devices[way])
            for way, direction in directions.items()
            for qdisc in netem_tree(direction)
        ]
        with self._lock:
            self._router.tc(commands)
            self._now |= directions

    def _follow(self, zero_ns: int) -> None:
        """Make the changes of all timelines, each in its time (in a thread)."""
        schedules = [_labelled(self._links[path].schedule(way), (path, way)) for path, way in self._devices]
        for at_s, way, direction in heapq.merge(*schedules, key=lambda change: change[0]):
            if self._ended.wait(max(0.0, at_s + (zero_ns - time.monotonic_ns()) / 1e9)):
                return
            try:
                self._set({way: direction})
            except LinkError as error:
                self._problem = error
                return
            at_ns = time.monotonic_ns()
            self._changes.append(LinkChange(at_ns=at_ns, path=way[0], direction=way[1], text=str(direction)))

    def stats(self) -> list[LinkStats]:
        return [self._way_stats(path, direction) for path, direction in self._devices]

    def close(self) -> None:
        """Interfaces and qdiscs go with their namespaces."""
        if self._timelines:
            self._ended.set()
            self._timelines.join()

    def _way_stats(self, path: str, direction: str) -> LinkStats:
        root = self._read_back(self._devices[path, direction])[0]
        return LinkStats(
            path=path,
            direction=direction,
            delivered_packets=root["packets"],
            delivered_bytes=root["bytes"] - root["packets"] * ETHERNET_HEADER_BYTES,
            dropped_packets=root["drops"],
        )

    def _read_back(self, device: str) -> list[dict[str, Any]]:
        """The qdiscs of one of the router's devices as `tc` sees them, the root first."""
        shown = json.loads(run_tool(["tc", "-n", ROUTER, "-json", "-statistics", "qdisc", "show", "dev", device]))
        return sorted((qdisc for qdisc in shown if qdisc["kind"] == "netem"), key=lambda qdisc: "root" not in qdisc)


def _labelled(
    schedule: Iterator[tuple[float, Direction]], way: tuple[str, str]
) -> Iterator[tuple[float, tuple[str, str], Direction]]:
    return ((at_s, way, direction) for at_s, direction in schedule)
