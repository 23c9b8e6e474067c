"""The emulator's process (`python -m loadtests.link.backends.ferry`).

It carries packets between TUN devices, each when its pipeline says.

It reads an :class:`Order` as one line of JSON from its standard input and answers `ready`, or a sentence about what
went wrong. Then each line it reads is answered by a line of JSON: `stats` by the :class:`LinkStats` of every crossing,
`changes` by every :class:`LinkChange` since the start, `late` by every :class:`LatePeriod`; `start NS` and `stop` begin
and end the timelines; `record FILE` begins to write there when what the server sends was carried, `record` ends that.
At end of input it ends, and its devices vanish with it.
"""

import fcntl
import gc
import heapq
import os
import select
import struct
import sys
import time

import msgspec

from loadtests.link.backends.backend import CARRIED, LatePeriod, LinkChange, LinkStats
from loadtests.link.model.effects import Effect
from loadtests.link.model.pipeline import Pipeline
from loadtests.link.model.profile import Direction, LinkProfile
from loadtests.link.model.trace import with_trace
from loadtests.link.sandbox import syscalls
from loadtests.link.sandbox.namespaces import Namespace
from loadtests.link.sandbox.priority import set_realtime_priority
from loadtests.link.sandbox.topology import CLIENT, SERVER
from loadtests.samples import PATHS

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000

#: Larger than any packet of the devices' MTU.
_READ_BYTES = 65536
#: So many packets are read in a row at most, lest those that are due wait for a flood.
_BATCH_PACKETS = 32
#: Later than any clock.
_NEVER_NS = 1 << 63
#: A packet of TCP that is longer carries data: the longest headers without it.
_HEADERS_BYTES = 80
#: What was carried is written out when there is so much of it: half a millisecond's work of a disk's cache, seldom.
_RECORD_BYTES = 1 << 16
#: Packets that leave later than this are noted, with when it was.
_LATE_NS = 1_000_000
#: Lateness is counted in buckets of this width; the last bucket holds all the rest.
_BUCKET_NS, _BUCKETS = 10_000, 1000


class Order(msgspec.Struct):
    """What to build: the link of each path, and the seed of everything random."""

    links: dict[str, LinkProfile]
    seed: int


class Crossing:
    """One direction of one path: where packets come from, what happens to them, where they go."""

    def __init__(self, path: str, direction: str, link: LinkProfile, seed: int, source: int, target: int) -> None:
        self.path = path
        self.direction = direction
        #: That of its path, if what it carries is recorded.
        self.number = PATHS.index(path) if direction == "down" else None
        self.source = source
        self.target = target
        self.changes: list[LinkChange] = []
        self._link = link
        self._overtakes = any(moment.overtakes for moment in link.moments(direction))
        #: As it is at the beginning; what the timeline changes leaves the trace alone.
        self._beginning = with_trace(getattr(link, direction))
        self._seed = f"{seed}/{path}/{direction}"
        self._dropped_before = 0
        self.pipeline = Pipeline(self._beginning, self._seed)
        self.stop()
        self.delivered_packets = 0
        self.delivered_bytes = 0
        self.refused_packets = 0
        self.lateness = [0] * _BUCKETS

    @property
    def late_queue(self) -> Effect | None:
        """The queue that packets come to only after their delay, since they may overtake each other before it."""
        return self.pipeline.queue if self._overtakes else None

    def start(self, zero_ns: int) -> None:
        """Begin anew; the same seed makes the same decisions from here on, whatever was carried before."""
        self._begin(zero_ns)
        self._schedule = self._link.schedule(self.direction)
        self._zero_ns = zero_ns
        self._plan()

    def stop(self) -> None:
        """Reset to the initial parameters, and stop the timeline."""
        self._begin(time.monotonic_ns())
        self._schedule = iter(())
        self._plan()

    def change(self) -> None:
        """Make the change that is due, and plan the next."""
        assert self._next is not None, "due"
        self.pipeline.set(self._next, self.due_ns)
        self._note(self._next)
        self._plan()

    def _begin(self, at_ns: int) -> None:
        self._dropped_before += self.pipeline.dropped_packets
        self.pipeline = Pipeline(self._beginning, self._seed, at_ns)
        self.changes.clear()

    def _plan(self) -> None:
        planned = next(self._schedule, None)
        self._next = planned[1] if planned else None
        #: When the next change is due; never, if there is none.
        self.due_ns = self._zero_ns + round(planned[0] * 1e9) if planned else _NEVER_NS

    def _note(self, direction: Direction) -> None:
        at_ns = time.monotonic_ns()
        self.changes.append(LinkChange(at_ns=at_ns, path=self.path, direction=self.direction, text=str(direction)))

    def stats(self) -> LinkStats:
        return LinkStats(
            path=self.path,
            direction=self.direction,
            delivered_packets=self.delivered_packets,
            delivered_bytes=self.delivered_bytes,
            dropped_packets=self._dropped_before + self.pipeline.dropped_packets + self.refused_packets,
            lateness_p99_us=self._lateness_p99_us(),
        )

    def _lateness_p99_us(self) -> float:
        left = sum(self.lateness) * 0.01
        for bucket in reversed(range(_BUCKETS)):
            left -= self.lateness[bucket]
            if left < 0:
                return (bucket + 1) * _BUCKET_NS / 1e3
        return 0.0


class Record:
    """Writes down when packets were taken and when they left."""

    def __init__(self, file: str = "") -> None:
        """Without a file nothing is kept."""
        self._file = open(file, "wb", buffering=0) if file else None  # noqa: SIM115
        self._kept = bytearray()

    def add(self, path: int, taken_ns: int, left_ns: int) -> None:
        if self._file is not None:
            self._kept += CARRIED.pack(path, taken_ns, left_ns)
            if len(self._kept) >= _RECORD_BYTES:
                self._write()

    def close(self) -> None:
        if self._file is not None:
            self._write()
            self._file.close()

    def _write(self) -> None:
        assert self._file is not None, "asked before"
        self._file.write(self._kept)
        self._kept.clear()


class Ferry:
    """Carries packets over all crossings until the control channel is closed."""

    def __init__(self, crossings: list[Crossing], control: int) -> None:
        self._crossings = {crossing.source: crossing for crossing in crossings}
        self._control = control
        #: (when it is due in ns, sequence number, crossing, packet, when it was taken in ns, at which queue it is due
        #: then, if not at the other side): a heap.
        self._waiting: list[tuple[int, int, Crossing, bytes, int, Effect | None]] = []
        self._record = Record()
        self._sequence = 0
        self._late: list[LatePeriod] = []

    def run(self) -> None:
        """Serve until the end of the control channel."""
        files = [self._control, *self._crossings]
        change_ns = _NEVER_NS
        while True:
            next_ns = min(self._waiting[0][0], change_ns) if self._waiting else change_ns
            timeout_s = None if next_ns == _NEVER_NS else max(0, next_ns - time.monotonic_ns()) / 1e9
            readable, _, _ = select.select(files, (), (), timeout_s)
            if change_ns <= time.monotonic_ns():
                change_ns = self._change(time.monotonic_ns())
            for file in readable:
                if file != self._control:
                    self._collect(self._crossings[file])
                elif self._answer():
                    change_ns = self._change(0)
                else:
                    return
            self._deliver()

    def _change(self, now_ns: int) -> int:
        """Make every change that is due; returns when the next one is."""
        for crossing in self._crossings.values():
            while crossing.due_ns <= now_ns:
                crossing.change()
        return min(crossing.due_ns for crossing in self._crossings.values())

    def _collect(self, crossing: Crossing) -> None:
        """Read what has arrived and decide when each packet leaves."""
        source, pipeline, waiting, clock_ns = crossing.source, crossing.pipeline, self._waiting, time.monotonic_ns
        queue = crossing.late_queue
        leaves_ns = pipeline.leaves_ns if queue is None else pipeline.reaches_queue_ns
        for _ in range(_BATCH_PACKETS):
            try:
                packet = os.read(source, _READ_BYTES)
            except BlockingIOError:
                return
            for copy in pipeline.copies(packet) if pipeline.copies_packets else (packet,):
                taken_ns = clock_ns()
                due_ns = leaves_ns(taken_ns, len(copy))
                if due_ns is not None:
                    self._sequence += 1
                    heapq.heappush(waiting, (due_ns, self._sequence, crossing, copy, taken_ns, queue))

    def _deliver(self) -> None:
        """Write every packet whose time has come."""
        waiting, record, clock_ns = self._waiting, self._record, time.monotonic_ns
        now_ns = clock_ns()
        while waiting and waiting[0][0] <= now_ns:
            due_ns, number, crossing, packet, taken_ns, queue = heapq.heappop(waiting)
            if queue is not None:
                left_ns = queue.leaves_ns(due_ns, len(packet))
                if left_ns is not None:
                    heapq.heappush(waiting, (left_ns, number, crossing, packet, taken_ns, None))
                continue
            try:
                os.write(crossing.target, packet)
            except OSError:  # the device is down, or the kernel has no memory for the packet
                crossing.refused_packets += 1
                continue
            crossing.delivered_packets += 1
            crossing.delivered_bytes += len(packet)
            now_ns = clock_ns()
            if crossing.number is not None and len(packet) > _HEADERS_BYTES:
                record.add(crossing.number, taken_ns, now_ns)
            crossing.lateness[min((now_ns - due_ns) // _BUCKET_NS, _BUCKETS - 1)] += 1
            if now_ns - due_ns > _LATE_NS:
                self._note_late(due_ns, now_ns)

    def _note_late(self, due_ns: int, now_ns: int) -> None:
        """A packet was late; those that waited with it are of the same period."""
        if self._late and due_ns <= self._late[-1].end_ns:
            self._late[-1].end_ns = now_ns
        else:
            self._late.append(LatePeriod(due_ns, now_ns))

    def _answer(self) -> bool:
        """Do what a line of the control channel says; False at its end."""
        crossings = list(self._crossings.values())
        word, _, said = os.read(self._control, 4096).decode().rstrip("\n").partition(" ")
        answer: list[LinkStats] | list[LinkChange] | list[LatePeriod] = []
        match word:
            case "stats":
                answer = [crossing.stats() for crossing in crossings]
            case "changes":
                answer = [change for crossing in crossings for change in crossing.changes]
            case "late":
                answer = self._late
            case "start":
                for crossing in crossings:
                    crossing.start(int(said))
            case "stop":
                for crossing in crossings:
                    crossing.stop()
            case "record":
                self._record.close()
                self._record = Record(said)
            case _:
                return False
        _say(msgspec.json.encode(answer))
        return True


def open_tun(namespace: Namespace, name: str) -> int:
    """A TUN device in `namespace`, nonblocking; it exists as long as the file descriptor returned."""
    with namespace.entered():
        tun = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


def build_crossings(order: Order) -> list[Crossing]:
    """Open the devices of every path, and join them in both directions."""
    crossings = []
    for path, link in order.links.items():
        client, server = (open_tun(Namespace(name), path) for name in (CLIENT, SERVER))
        crossings.append(Crossing(path, "up", link, order.seed, client, server))
        crossings.append(Crossing(path, "down", link, order.seed, server, client))
    return crossings


def main() -> int:
    """Raises nothing that a user could have caused: the sentence goes to the other end of the pipe."""
    control = sys.stdin.fileno()
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    try:
        crossings = build_crossings(order)
    except OSError as error:
        _say(f"{_TUN}: {error.strerror}".encode())
        return 1
    syscalls.prctl(syscalls.PR_SET_TIMERSLACK, 1)  # timeouts end to the nanosecond, not up to 50 µs later
    set_realtime_priority()
    gc.disable()  # packets make no cycles, and a collection would make them late
    _say(b"ready")
    Ferry(crossings, control).run()
    return 0


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
