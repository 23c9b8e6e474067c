"""The laboratory's network: a client and a server joined by impaired paths, for the length of a `with` block."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

from loadtests.errors import LinkError
from loadtests.link.backends.backend import Backend, BackendName
from loadtests.link.backends.emulator import EmulatorBackend
from loadtests.link.backends.links import Links
from loadtests.link.backends.netem import NetemBackend, kernel_has_netem
from loadtests.link.backends.plain import PlainBackend
from loadtests.link.backends.qdisc import beyond_netem
from loadtests.link.measure.calibrate import LinkRow, calibrate
from loadtests.link.model.profile import LinkProfile
from loadtests.link.sandbox.namespaces import Namespace
from loadtests.link.sandbox.priority import realtime_priority
from loadtests.link.sandbox.topology import CLIENT, SERVER, server_address
from loadtests.stalls.intervals import Interval

BACKENDS: dict[str, Callable[[dict[str, LinkProfile], int], Backend]] = {
    "emulator": EmulatorBackend,
    "netem": NetemBackend,
    "none": PlainBackend,
}


class Lab(Links):
    """Two hosts and the links between them."""

    def __init__(self, links: Mapping[str, LinkProfile], backend: Backend) -> None:
        super().__init__(links, backend)
        #: Where the load comes from.
        self.client = Namespace(CLIENT)
        #: Where the chat server runs.
        self.server = Namespace(SERVER)
        #: The server's address on each path.
        self.addresses = {path: server_address(path) for path in self.links}

    def _calibrate_once(self, disturbances: Callable[[], list[Interval]]) -> list[LinkRow]:
        with realtime_priority():
            return calibrate(self.links, disturbances)


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
