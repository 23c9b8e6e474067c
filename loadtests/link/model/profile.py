"""What a link does to the packets that cross it.

A :class:`LinkProfile` is one :class:`Direction` for `up` (client → server) and one for `down`, and the changes that
befall them in time; every quantity is a plain number in the unit its name says. Both backends, `tc netem` and the
emulator, are built from the same profile. `linkfile.py` reads one from YAML.
"""

import itertools
from collections.abc import Iterator

import msgspec

from chat.words import count
from loadtests.link.model.distributions import Distribution

#: The two ways a client can take.
PATHS = ("primary", "secondary")

#: A rate and its queue count packets as `tc` does on Ethernet: with its header.
ETHERNET_HEADER_BYTES = 14
FULL_PACKET_BYTES = 1500 + ETHERNET_HEADER_BYTES
#: What one line of a trace can send: a full packet, and the four bytes that mahimahi's TUN device puts before it.
OPPORTUNITY_BYTES = 1504


class GilbertElliott(msgspec.Struct, frozen=True, tag=True):
    """Bursty loss: a good and a bad state, each with its own loss; the chain takes one step per packet."""

    #: Probability of going from good to bad.
    p: float
    #: Probability of going from bad to good: bad states are 1/r packets long on average.
    r: float
    #: Loss in the bad state.
    bad_loss: float = 1.0
    #: Loss in the good state.
    good_loss: float = 0.0

    @property
    def mean_loss(self) -> float:
        """Share of packets lost in the long run."""
        return (self.p * self.bad_loss + self.r * self.good_loss) / (self.p + self.r)


class TimedBursts(msgspec.Struct, frozen=True, tag=True):
    """Gilbert–Elliott in time instead of packets: the states last as long however many packets there are."""

    #: Mean length of the good and of the bad state in seconds (exponentially distributed).
    good_s: float
    bad_s: float
    #: Loss in the bad and in the good state.
    bad_loss: float = 1.0
    good_loss: float = 0.0

    @property
    def mean_loss(self) -> float:
        """Share of packets lost in the long run."""
        return (self.bad_s * self.bad_loss + self.good_s * self.good_loss) / (self.bad_s + self.good_s)


class Trace(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recorded link: when it could send, in mahimahi's format (`trace.py` reads it)."""

    path: str
    mean_bps: float
    #: The millisecond of each opportunity, rising; empty until :func:`loadtests.link.model.trace.with_trace`.
    times_ms: tuple[int, ...] = ()


class Direction(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to packets in one direction."""

    delay_s: float = 0.0
    #: Each packet takes `delay_s + jitter_s · t`; for `uniform`, t is between -1 and 1.
    jitter_s: float = 0.0
    distribution: Distribution = "uniform"
    #: Jitter never lets a packet overtake the one before.
    keep_order: bool = True
    #: Share of packets lost, each on its own; or in bursts.
    loss: float | GilbertElliott | TimedBursts = 0.0
    #: Share of packets that arrive twice.
    duplicate: float = 0.0
    #: Share of packets that skip the delay, and so overtake others.
    reorder: float = 0.0
    #: Share of packets of which one bit is flipped; checksums then discard them.
    corrupt: float = 0.0
    #: Bits per second; None is unlimited.
    rate_bps: float | None = None
    #: Instead of a constant rate.
    trace: Trace | None = None
    #: Packets that fit in front of the rate, counting the one being sent; the next is dropped.
    queue_packets: int = 0

    @property
    def loss_ratio(self) -> float:
        """Share of packets that the loss model drops in the long run."""
        return self.loss if isinstance(self.loss, float) else self.loss.mean_loss

    @property
    def expected_loss(self) -> float:
        """Share of packets of which nothing arrives in the long run, a full queue apart."""
        once = 1 - (1 - self.loss_ratio) * (1 - self.corrupt)
        return once * (1 - self.duplicate * (1 - once))

    @property
    def overtakes(self) -> bool:
        """Whether a packet may leave its delay before one that came earlier."""
        return self.reorder > 0 or not self.keep_order

    def transmission_s(self, ip_bytes: int) -> float:
        """How long a packet of `ip_bytes` occupies the link."""
        return (ip_bytes + ETHERNET_HEADER_BYTES) * 8 / self.rate_bps if self.rate_bps else 0.0

    @property
    def queue_s(self) -> float:
        """How long a packet waits behind a full queue; 0 without a constant rate."""
        return self.queue_packets * self.transmission_s(1500)

    def __str__(self) -> str:
        if self.loss == 1:
            return "outage"
        said = [f"delay {self.delay_s * 1e3:g} ms" + (f" ± {self.jitter_s * 1e3:g} ms" if self.jitter_s else "")]
        if self.jitter_s and self.distribution != "uniform":
            said[0] += f" {self.distribution}"
        if self.jitter_s and not self.keep_order:
            said[0] += " in any order"
        if self.loss_ratio:
            said.append(f"loss {self.loss_ratio * 100:.3g} %" + ("" if isinstance(self.loss, float) else " in bursts"))
        shares = {"duplicate": self.duplicate, "reorder": self.reorder, "corrupt": self.corrupt}
        said += [f"{name} {share * 100:.3g} %" for name, share in shares.items() if share]
        if self.rate_bps:
            said.append(f"rate {self.rate_bps / 1e6:g} Mbit/s with a queue of {self.queue_packets} packets")
        if self.trace:
            mean = f"{self.trace.mean_bps / 1e6:.3g} Mbit/s on average"
            said.append(f"rate by trace, {mean}, with a queue of {self.queue_packets} packets")
        return ", ".join(said)


class Change(msgspec.Struct, frozen=True):
    """What both directions do from some moment on: all of it, not only what is new."""

    at_s: float
    up: Direction
    down: Direction


class LinkProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A link: what it is called, where its numbers come from, what it does in each direction and when."""

    name: str
    description: str = ""
    source: str = ""
    #: How it begins.
    up: Direction = Direction()
    down: Direction = Direction()
    #: What follows, rising in time.
    timeline: tuple[Change, ...] = ()
    #: After so long everything begins again; None is never.
    cycle_s: float | None = None

    @property
    def rtt_s(self) -> float:
        """Requested round-trip time of a lone small packet, in seconds."""
        return self.up.delay_s + self.down.delay_s

    def moments(self, way: str) -> list[Direction]:
        """All that `up` or `down` ever does."""
        return [getattr(moment, way) for moment in (self, *self.timeline)]

    def schedule(self, way: str) -> Iterator[tuple[float, Direction]]:
        """When and into what `up` or `down` changes after its beginning; endless if it is a cycle."""
        changes = [change for change in self.timeline if change.at_s > 0]
        before: Direction = getattr(self, way)
        if all(getattr(change, way) == before for change in changes):
            return  # a cycle without a change would be searched for ever
        beginning = Change(0, self.up, self.down)
        for turn in itertools.count():
            for change in [beginning, *changes] if turn else changes:
                direction: Direction = getattr(change, way)
                if direction != before:
                    yield turn * (self.cycle_s or 0) + change.at_s, direction
                before = direction
            if self.cycle_s is None:
                return

    def __str__(self) -> str:
        change = f"; {count(len(self.timeline), 'change')}" if self.timeline else ""
        change += f" every {self.cycle_s:g} s" if self.cycle_s else ""
        if self.up == self.down:
            return f"{self.name} (each way: {self.up}{change})"
        return f"{self.name} (up: {self.up}; down: {self.down}{change})"
