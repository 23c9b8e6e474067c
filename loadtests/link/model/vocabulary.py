"""The keys that a link file may say, as people write them; `linkfile.py` refuses what does not fit together."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec

from loadtests.config.units import BitsPerSecond, Quantity, Ratio, Seconds
from loadtests.link.model.distributions import Distribution
from loadtests.link.model.profile import FULL_PACKET_BYTES, Direction, GilbertElliott, TimedBursts, Trace
from loadtests.link.model.trace import mean_bps, read_trace

WAYS = ("up", "down")


class Packets(Quantity):
    """A number of packets."""

    units: ClassVar = {"packet": 1.0, "packets": 1.0}
    expected: ClassVar = "a number of packets such as 50packets"


@dataclass(frozen=True)
class Queue:
    """The length of a queue: a time (`100ms`) or a number of packets (`50packets`)."""

    length: Seconds | Packets

    @classmethod
    def from_yaml(cls, value: Any) -> Self:
        """Raises ValueError: the text is neither (the user's fault)."""
        for kind in (Seconds, Packets):
            try:
                return cls(kind.from_yaml(value))
            except ValueError:
                continue
        raise ValueError(f"expected {Seconds.expected}, or {Packets.expected}; got {value!r}")

    def packets(self, rate_bps: float) -> int:
        """The length in packets; a time is filled with full-size packets, and one packet always fits."""
        if isinstance(self.length, Packets):
            return max(1, round(self.length))
        return max(1, math.ceil(self.length * rate_bps / (8 * FULL_PACKET_BYTES)))


#: A rate without a queue gets one of this length, with room for TCP's initial window at least.
DEFAULT_QUEUE = Queue(Seconds(0.1))
DEFAULT_QUEUE_LEAST_PACKETS = 10


class Share(Ratio):
    """A share of packets; a second one beside it, netem's correlation, is refused."""

    @classmethod
    def from_yaml(cls, value: Any) -> Self:
        if isinstance(value, str) and len(re.findall(r"[\d.]+", value)) > 1:
            raise ValueError(
                f"one percentage only, got {value!r}: netem's correlation makes a small loss almost none at all; "
                "for bursts use {gilbert_elliott: {p: 1%, r: 25%}}"
            )
        return super().from_yaml(value)


class GilbertElliottBlock(msgspec.Struct):
    """`{p, r, 1-h, 1-k}`, by the names of tc netem's `gemodel`; or how long the states last: `{good, bad}`."""

    p: Ratio | None = None
    r: Ratio | None = None
    good: Seconds | None = None
    bad: Seconds | None = None
    bad_loss: Ratio = msgspec.field(name="1-h", default=Ratio(1))
    good_loss: Ratio = msgspec.field(name="1-k", default=Ratio(0))

    def __post_init__(self) -> None:
        said = tuple(key for key in ("p", "r", "good", "bad") if getattr(self, key) is not None)
        if said not in (("p", "r"), ("good", "bad")):
            raise ValueError("expected p and r (steps per packet), or good and bad (mean lengths)")
        if said == ("p", "r") and not self.p and not self.r:
            raise ValueError("p and r must not both be 0")
        if said == ("good", "bad") and not (self.good and self.bad):
            raise ValueError("good and bad must be more than 0")

    def model(self) -> GilbertElliott | TimedBursts:
        losses = float(self.bad_loss), float(self.good_loss)
        if self.good is not None and self.bad is not None:
            return TimedBursts(float(self.good), float(self.bad), *losses)
        return GilbertElliott(float(self.p or 0), float(self.r or 0), *losses)


class BurstyLoss(msgspec.Struct):
    """A `loss` that is more than a percentage."""

    gilbert_elliott: GilbertElliottBlock


class JitterBlock(msgspec.Struct):
    """A `jitter` that is more than its size."""

    size: Seconds
    distribution: Distribution = "uniform"
    keep_order: bool = True


class Rate(BitsPerSecond):
    """A rate that lets something through."""

    @classmethod
    def from_yaml(cls, value: Any) -> Self:
        rate = super().from_yaml(value)
        if not rate:
            raise ValueError("must be more than 0; leave it out for an unlimited link, or use outage")
        return rate


@dataclass(frozen=True)
class TraceFile:
    """A file in mahimahi's format, relative to the file that names it."""

    trace: Trace

    @classmethod
    def from_yaml(cls, value: Any) -> Self:
        path = str(Path(value).resolve())
        return cls(Trace(path, mean_bps(read_trace(path))))


class DirectionBlock(msgspec.Struct):
    """The keys of one direction; None where the file is silent."""

    delay: Seconds | None = None
    jitter: Seconds | JitterBlock | None = None
    loss: Share | BurstyLoss | None = None
    duplicate: Share | None = None
    reorder: Share | None = None
    corrupt: Share | None = None
    rate: Rate | None = None
    trace: TraceFile | None = None
    queue: Queue | None = None
    #: From here on nothing arrives for so long.
    outage: Seconds | None = None

    def overridden_by(self, other: "DirectionBlock") -> "DirectionBlock":
        """These keys, where `other` is silent."""
        said = {key: value for key in KEYS if (value := getattr(other, key)) is not None}
        if isinstance(self.jitter, JitterBlock) and isinstance(other.jitter, Seconds):  # the distribution stays
            said["jitter"] = msgspec.structs.replace(self.jitter, size=other.jitter)
        return DirectionBlock(**{key: getattr(self, key) for key in KEYS} | said)

    def direction(self) -> Direction:
        """What the keys mean, an outage apart."""
        jitter = self.jitter if isinstance(self.jitter, JitterBlock) else JitterBlock(self.jitter or Seconds(0))
        loss = self.loss.gilbert_elliott.model() if isinstance(self.loss, BurstyLoss) else float(self.loss or 0)
        trace = self.trace.trace if self.trace else None
        rate_bps = float(self.rate) if self.rate else None
        narrowest_bps = rate_bps or (trace.mean_bps if trace else None)
        return Direction(
            delay_s=float(self.delay or 0),
            jitter_s=float(jitter.size),
            distribution=jitter.distribution,
            keep_order=jitter.keep_order,
            loss=loss,
            duplicate=float(self.duplicate or 0),
            reorder=float(self.reorder or 0),
            corrupt=float(self.corrupt or 0),
            rate_bps=rate_bps,
            trace=trace,
            queue_packets=_queue_packets(self.queue, narrowest_bps) if narrowest_bps else 0,
        )


KEYS = DirectionBlock.__struct_fields__


class BothWays(DirectionBlock):
    """Keys that hold both ways, unless `up` or `down` says otherwise."""

    rtt: Seconds | None = None
    up: DirectionBlock = msgspec.field(default_factory=DirectionBlock)
    down: DirectionBlock = msgspec.field(default_factory=DirectionBlock)

    def way(self, name: str) -> DirectionBlock:
        """The keys of `up` or `down`."""
        half = DirectionBlock(delay=None if self.rtt is None else Seconds(self.rtt / 2))
        both = half.overridden_by(self)
        own: DirectionBlock = getattr(self, name)
        return both.overridden_by(own)


class Entry(BothWays):
    """A change in the timeline of a link: what is said changes, at once or little by little; the rest stays."""

    at: Seconds = msgspec.field(default=Seconds(-1))
    ramp: Seconds = Seconds(0)

    def __post_init__(self) -> None:
        if self.at < 0:
            raise ValueError("the key at is missing: when it happens")
        for name in ("up", "down"):
            block = self.way(name)
            if block.trace is not None or isinstance(block.jitter, JitterBlock):
                raise ValueError(
                    "a trace, a distribution and keep_order hold for the whole time: put them outside the timeline"
                )
            if self.ramp and block.outage is not None:
                raise ValueError("an outage comes at once: no ramp")
            if self.ramp and isinstance(block.loss, BurstyLoss):
                raise ValueError("bursts come at once: no ramp")


class LinkBlock(BothWays):
    """The keys of a link."""

    description: str = ""
    source: str = ""
    timeline: list[Entry] = msgspec.field(default_factory=list)
    cycle: Seconds | None = None


def _queue_packets(queue: Queue | None, rate_bps: float) -> int:
    if queue is None:
        return max(DEFAULT_QUEUE_LEAST_PACKETS, DEFAULT_QUEUE.packets(rate_bps))
    return queue.packets(rate_bps)
