"""The laboratory's network: a client and a server joined by impaired paths, for the length of a `with` block."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from loadtests.errors import LinkError
from loadtests.link.backend import Backend, LinkChange, LinkStats
from loadtests.link.calibrate import LinkRow, calibrate
from loadtests.link.emulator import EmulatorBackend
from loadtests.link.namespaces import Namespace
from loadtests.link.netem import NetemBackend, kernel_has_netem
from loadtests.link.plain import PlainBackend
from loadtests.link.profile import LinkProfile
from loadtests.link.qdisc import beyond_netem
from loadtests.link.topology import CLIENT, SERVER, server_address

#: Links are quiet when they carry no more than this in so much time; what is left may be a connection's last words.
_STRAY_BYTES, _QUIET_S = 1500, 0.1
_SETTLED_BY_S = 3.0

BackendName = Literal["auto", "emulator", "netem", "none"]

BACKENDS: dict[str, Callable[[dict[str, LinkProfile], int], Backend]] = {
    "emulator": EmulatorBackend,
    "netem": NetemBackend,
    "none": PlainBackend,
}


class Lab:
    """Two hosts and the links between them."""

    def __init__(self, links: Mapping[str, LinkProfile], backend: Backend) -> None:
        self.links = dict(links)
        #: Where the load comes from.
        self.client = Namespace(CLIENT)
        #: Where the chat server runs.
        self.server = Namespace(SERVER)
        #: The server's address on each path.
        self.addresses = {path: server_address(path) for path in self.links}
        self._backend = backend

    def __repr__(self) -> str:
        links = "; ".join(f"{path}: {link}" for path, link in self.links.items())
        return f"<Lab {self.backend}, {links}>"

    @property
    def backend(self) -> str:
        """What makes the links: `emulator`, `netem` or `none`."""
        return self._backend.name

    @property
    def link_pid(self) -> int | None:
        """The process that carries the packets; None if the kernel does."""
        return self._backend.pid

    def calibrate(self) -> list[LinkRow]:
        """Measure what the links really do, in both directions; takes a few seconds and expects no other traffic."""
        return calibrate(self.links)

    def start(self, zero_ns: int | None = None) -> None:
        """Begin anew, so that the same seed makes the same decisions from here on, and let the timelines run.

        Args:
            zero_ns: second 0 of every timeline (CLOCK_MONOTONIC); may be past, then what is overdue happens at once.
        """
        self._backend.start(time.monotonic_ns() if zero_ns is None else zero_ns)

    def stop(self) -> None:
        """End the timelines: every link is as it begins, and can be calibrated again."""
        self._backend.stop()

    def settle(self) -> None:
        """Wait until the links carry next to nothing: what senders that have ended left behind, they still deliver.

        It gives up after some seconds, for the calibration that follows will tell.
        """
        longest_s = max(link.rtt_s + link.up.queue_s + link.down.queue_s for link in self.links.values())
        end_s = time.monotonic() + _SETTLED_BY_S + longest_s
        while time.monotonic() < end_s:
            before = self._carried_bytes()
            time.sleep(_QUIET_S + longest_s)
            if self._carried_bytes() - before <= _STRAY_BYTES:
                return

    def _carried_bytes(self) -> int:
        return sum(stats.delivered_bytes for stats in self.stats())

    def changes(self) -> list[LinkChange]:
        """What the timelines have changed since `start`."""
        return sorted(self._backend.changes(), key=lambda change: change.at_ns)

    def stats(self) -> list[LinkStats]:
        """What each path carried so far in each direction."""
        return self._backend.stats()

    def check(self) -> None:
        """Raises LinkError: a link does not work any more."""
        self._backend.check()


@contextlib.contextmanager
def open_lab(links: Mapping[str, LinkProfile], backend: BackendName = "auto", seed: int = 1) -> Iterator[Lab]:
    """Build the network inside `run_in_lab`, and undo it at the end, so that another can follow.

    Args:
        links: the link of each path, `primary` and perhaps `secondary`.
        backend: who makes the links; `auto` takes netem if the kernel has it and the links need no more.
        seed: of everything random in the emulator (netem draws its own).

    Raises:
        LinkError: the links cannot be built here, or do not read back as requested.
    """
    beyond = any(beyond_netem(link) for link in links.values())
    has_netem = (backend == "netem" or (backend == "auto" and not beyond)) and kernel_has_netem()
    if backend == "netem" and not has_netem:
        raise LinkError(
            "this kernel has no netem (CONFIG_NET_SCH_NETEM); use the emulator, or as root: modprobe sch_netem"
        )
    chosen = "none" if backend == "none" else "netem" if has_netem else "emulator"
    if chosen == "none":
        links = {path: LinkProfile(name=f"{link.name}, not applied") for path, link in links.items()}
    built = BACKENDS[chosen](dict(links), seed)
    with contextlib.ExitStack() as undo:
        for name in built.hosts:
            namespace = Namespace(name)
            namespace.create()
            undo.callback(namespace.delete)
        undo.callback(built.close)
        built.open()
        yield Lab(links, built)
