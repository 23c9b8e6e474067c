"""netem on some devices: set, read back, followed through the timelines; whoever made the devices."""

import heapq
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadtests.errors import LinkError
from loadtests.link.backends.backend import LatePeriod, LinkChange, LinkStats
from loadtests.link.backends.qdisc import Netem, netem_tree
from loadtests.link.model.profile import ETHERNET_HEADER_BYTES, Direction, LinkProfile
from loadtests.link.sandbox.namespaces import run_tool

#: (path, `up` or `down`)
Way = tuple[str, str]


class Shaping:
    """The qdiscs of one device for each way."""

    def __init__(
        self, links: Mapping[str, LinkProfile], devices: Mapping[Way, str], tc: Sequence[str], parent: str = "root"
    ) -> None:
        """
        Args:
            devices: which device sends what goes this way.
            tc: the command that sees them, as in `["tc", "-n", "router"]`.
            parent: where on each device the qdiscs hang.
        """
        self._links = links
        self._devices = devices
        self._tc = tc
        self._parent = parent
        #: What each way does now.
        self._now: dict[Way, Direction] = {}
        self._changes: list[LinkChange] = []
        #: Between a change and a look at it.
        self._lock = threading.Lock()
        self._timelines: threading.Thread | None = None
        self._ended = threading.Event()
        self._problem: LinkError | None = None

    def begin(self) -> None:
        """Every way as its link begins; raises LinkError: the kernel cannot, or made something else of it."""
        self._set(self._beginning())
        self.check()

    def commands(self) -> list[str]:
        """The `tc` commands that make every way as its link begins."""
        return self._commands(self._beginning())

    def check(self) -> None:
        """Raises LinkError: a change failed, or a qdisc is not what was asked for."""
        if self._problem:
            raise self._problem
        with self._lock:
            for way, direction in self._now.items():
                device = self._devices[way]
                made = {qdisc["handle"]: qdisc["options"] for qdisc in self._read_back(device)}
                for wanted in self._tree(way, direction):
                    problem = wanted.difference(made.get(wanted.handle))
                    if problem:
                        raise LinkError(f"netem on {device} is not what was asked for: {problem}")

    def start(self, zero_ns: int) -> None:
        """Follow the timelines, whose second 0 is `zero_ns` (CLOCK_MONOTONIC)."""
        self.stop()
        self._changes.clear()
        self._ended.clear()
        self._timelines = threading.Thread(target=self._follow, args=(zero_ns,), name="timelines", daemon=True)
        self._timelines.start()

    def stop(self) -> None:
        """Follow them no more; every way is again as it begins."""
        if self._timelines:
            self.close()
            self.begin()

    def changes(self) -> list[LinkChange]:
        """What the timelines have changed since `start`."""
        return list(self._changes)

    def stats(self) -> list[LinkStats]:
        """What each way carried so far."""
        return [self._way_stats(path, direction) for path, direction in self._devices]

    def close(self) -> None:
        """Follow no timeline any more, and leave everything as it is."""
        if self._timelines:
            self._ended.set()
            self._timelines.join()
            self._timelines = None

    def late(self) -> list[LatePeriod]:
        """The kernel does not tell."""
        return []

    def _set(self, directions: dict[Way, Direction]) -> None:
        """Every parameter of these directions, whichever of them is new."""
        with self._lock:
            run_tool([*self._tc, "-batch", "-"], "\n".join(self._commands(directions)))
            self._now |= directions

    def _beginning(self) -> dict[Way, Direction]:
        return {(path, way): self._links[path].moments(way)[0] for path, way in self._devices}

    def _commands(self, directions: dict[Way, Direction]) -> list[str]:
        return [
            qdisc.command(self._devices[way])
            for way, direction in directions.items()
            for qdisc in self._tree(way, direction)
        ]

    def _tree(self, way: Way, direction: Direction) -> list[Netem]:
        queued = any(moment.rate_bps for moment in self._links[way[0]].moments(way[1]))
        return netem_tree(direction, self._parent, queued=queued)

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
        """The netems of a device as `tc` sees them, the outermost first."""
        shown = json.loads(run_tool([*self._tc, "-json", "-statistics", "qdisc", "show", "dev", device]))
        return sorted((qdisc for qdisc in shown if qdisc["kind"] == "netem"), key=lambda qdisc: str(qdisc["handle"]))


def _labelled(schedule: Iterator[tuple[float, Direction]], way: Way) -> Iterator[tuple[float, Way, Direction]]:
    return ((at_s, way, direction) for at_s, direction in schedule)
