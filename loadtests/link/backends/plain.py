"""The backend `none`: client and server joined by a cable that does nothing, to tell what the rest costs by itself."""

import json
from pathlib import Path

from loadtests.link.backends.backend import LatePeriod, LinkChange, LinkStats
from loadtests.link.model.profile import ETHERNET_HEADER_BYTES, LinkProfile
from loadtests.link.sandbox.namespaces import Namespace, run_tool
from loadtests.link.sandbox.topology import CLIENT, SERVER, client_address, server_address


class PlainBackend:
    """A veth pair for each path."""

    name = "none"
    hosts: tuple[str, ...] = (CLIENT, SERVER)
    pid: int | None = None

    def __init__(self, links: dict[str, LinkProfile], seed: int) -> None:
        """What the links ask for is not done, and nothing is random."""
        self._paths = list(links)

    def open(self) -> None:
        for path in self._paths:
            Namespace(CLIENT).ip([f"link add name {path} type veth peer name {path} netns {SERVER}"])
            for end, address in ((CLIENT, client_address(path)), (SERVER, server_address(path))):
                Namespace(end).ip([f"link set {path} mtu 1500 up", f"address add {address}/24 dev {path}"])

    def check(self) -> None:
        """A cable does not break."""

    def start(self, zero_ns: int) -> None:
        """Nothing changes in time."""

    def stop(self) -> None:
        """Nothing changes in time."""

    def changes(self) -> list[LinkChange]:
        return []

    def stats(self) -> list[LinkStats]:
        ways = (("up", CLIENT), ("down", SERVER))
        return [_sent(path, direction, end) for path in self._paths for direction, end in ways]

    def late(self) -> list[LatePeriod]:
        return []

    def record(self, _file: Path | None) -> None:
        """Nobody takes packets here."""

    def close(self) -> None:
        """Interfaces go with their namespaces."""


def _sent(path: str, direction: str, end: str) -> LinkStats:
    (device,) = json.loads(run_tool(["ip", "-n", end, "-json", "-statistics", "link", "show", "dev", path]))
    sent = device["stats64"]["tx"]
    return LinkStats(
        path=path,
        direction=direction,
        delivered_packets=sent["packets"],
        delivered_bytes=sent["bytes"] - sent["packets"] * ETHERNET_HEADER_BYTES,
        dropped_packets=sent["dropped"],
    )
