"""The backend that uses the kernel: `tc netem` on a router between client and server.

::

    client ─ veth ─ router ─ veth ─ server

The impairments sit where the router sends: up on its veth to the server, down on its veth to the client. On the
sender's own veth TCP's limit on queued packets (TCP small queues) would see the delay line and hold the sender back.
Neighbours are fixed, so no ARP crosses the link; `gso_max_segs 1` keeps packets at most MTU long, so that loss is per
packet.
"""

from pathlib import Path

from loadtests.errors import LinkError
from loadtests.link.backends.qdisc import beyond_netem
from loadtests.link.backends.shaping import Shaping
from loadtests.link.model.profile import PATHS, LinkProfile
from loadtests.link.sandbox.namespaces import Namespace, run_tool
from loadtests.link.sandbox.topology import CLIENT, ROUTER, SERVER, client_address, server_address


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
    """Builds the router, and has its devices shaped."""

    name = "netem"
    hosts: tuple[str, ...] = (CLIENT, ROUTER, SERVER)
    pid: int | None = None

    def __init__(self, links: dict[str, LinkProfile], seed: int) -> None:
        """`seed` changes nothing: netem draws its own randomness, and most versions of `tc` cannot seed it."""
        self._links = links
        devices = {
            (path, way): router_device(end, path) for path in links for way, end in (("up", SERVER), ("down", CLIENT))
        }
        self._shaping = Shaping(links, devices, ["tc", "-n", ROUTER])
        self.check = self._shaping.check
        self.start = self._shaping.start
        self.stop = self._shaping.stop
        self.changes = self._shaping.changes
        self.stats = self._shaping.stats
        self.late = self._shaping.late

    def open(self) -> None:
        for path, link in self._links.items():
            if problem := beyond_netem(link):
                raise LinkError(f"link {path}: {problem}; use the emulator")
        router = Namespace(ROUTER)
        router.sysctl("net/ipv4/ip_forward", "1")
        for path in self._links:
            for end in (CLIENT, SERVER):
                Namespace(end).ip(end_commands(end, path))
                router.ip(router_commands(end, path))
        self._shaping.begin()

    def record(self, _file: Path | None) -> None:
        """The kernel carries the packets, and does not tell."""

    def close(self) -> None:
        """Interfaces and qdiscs go with their namespaces."""
        self._shaping.close()
