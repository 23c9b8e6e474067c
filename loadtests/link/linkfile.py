"""The YAML of a link: a file in `scenarios/links/`, or a block inside a scenario, decoded into a LinkProfile."""

import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec

from loadtests.errors import ConfigError
from loadtests.link.profile import FULL_PACKET_BYTES, Direction, GilbertElliott, LinkProfile
from loadtests.units import BitsPerSecond, Quantity, Ratio, Seconds
from loadtests.yamlfile import Document, KeyPath

LINKS_FOLDER = Path(__file__).resolve().parents[2] / "scenarios" / "links"


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


class GilbertElliottBlock(msgspec.Struct):
    """`gilbert_elliott: {p, r, 1-h, 1-k}`, by the names of tc netem's `gemodel`."""

    p: Ratio
    r: Ratio
    bad_loss: Ratio = msgspec.field(name="1-h", default=Ratio(1))
    good_loss: Ratio = msgspec.field(name="1-k", default=Ratio(0))

    def __post_init__(self) -> None:
        if self.p + self.r == 0:
            raise ValueError("p and r must not both be 0")


class BurstyLoss(msgspec.Struct):
    """A `loss` that is more than a percentage."""

    gilbert_elliott: GilbertElliottBlock


class Rate(BitsPerSecond):
    """A rate that lets something through."""

    @classmethod
    def from_yaml(cls, value: Any) -> Self:
        rate = super().from_yaml(value)
        if not rate:
            raise ValueError("must be more than 0; leave it out for an unlimited link")
        return rate


class DirectionBlock(msgspec.Struct):
    """The keys of one direction; None where the file is silent."""

    delay: Seconds | None = None
    jitter: Seconds | None = None
    loss: Ratio | BurstyLoss | None = None
    rate: Rate | None = None
    queue: Queue | None = None


class LinkBlock(DirectionBlock):
    """The keys of a link: those of a direction hold both ways, unless `up` or `down` says otherwise."""

    description: str = ""
    source: str = ""
    rtt: Seconds | None = None
    up: DirectionBlock = msgspec.field(default_factory=DirectionBlock)
    down: DirectionBlock = msgspec.field(default_factory=DirectionBlock)

    def direction(self, own: DirectionBlock) -> Direction:
        """What a direction does whose own block is `own`."""

        def said(key: str) -> Any:
            value = getattr(own, key)
            return getattr(self, key) if value is None else value

        delay_s = (self.rtt or 0) / 2 if said("delay") is None else said("delay")
        loss, rate, queue = said("loss"), said("rate"), said("queue")
        if isinstance(loss, BurstyLoss):
            model = loss.gilbert_elliott
            loss = GilbertElliott(float(model.p), float(model.r), float(model.bad_loss), float(model.good_loss))
        else:
            loss = float(loss or 0)
        return Direction(
            delay_s=float(delay_s),
            jitter_s=float(said("jitter") or 0),
            loss=loss,
            rate_bps=float(rate) if rate else None,
            queue_packets=_queue_packets(queue, rate) if rate else 0,
        )


def _queue_packets(queue: Queue | None, rate_bps: float) -> int:
    if queue is None:
        return max(DEFAULT_QUEUE_LEAST_PACKETS, DEFAULT_QUEUE.packets(rate_bps))
    return queue.packets(rate_bps)


def known_links() -> list[str]:
    """The names of the profiles in `scenarios/links/`."""
    return sorted(path.stem for path in LINKS_FOLDER.glob("*.yaml"))


def load_profile(link: str | Path) -> LinkProfile:
    """The profile with this name in `scenarios/links/`, or in this file.

    Raises ConfigError: no such link, or the file is wrong.
    """
    name = str(link)
    if isinstance(link, Path) or "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(link)
    else:
        path = LINKS_FOLDER / f"{name}.yaml"
        if not path.is_file():
            close = difflib.get_close_matches(name, known_links(), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"unknown link {name!r}; {hint}known: {', '.join(known_links())}; or the path of a file")
    return _profile(Document.read(path), (), path.stem)


def profile_at(document: Document, path: KeyPath) -> LinkProfile:
    """The link that the document says at `path`: a name, the path of a file, or the block itself.

    Raises ConfigError: at `path`, or where the link's own file is wrong.
    """
    value = _at(document, path)
    if isinstance(value, dict):
        return _profile(document, path, "inline")
    if not isinstance(value, str):
        raise document.error(path, f"expected a link: its name, its file or its block; got {value!r}")
    try:
        return load_profile(value)
    except ConfigError as error:
        raise document.error(path, str(error)) from None


def _at(document: Document, path: KeyPath) -> Any:
    value = document.data
    for step in path:
        value = value[step]
    return value


def _profile(document: Document, path: KeyPath, name: str) -> LinkProfile:
    """Decode the block at `path`, refusing first what is ambiguous and last what does not fit together."""
    for place in _said(document, path, "latency"):
        raise document.error(place, "ambiguous: say rtt (there and back) or delay (one way)")
    block = document.convert(LinkBlock, path)
    if block.rtt is not None:
        for place in _said(document, path, "delay"):
            raise document.error(place, "not together with rtt: rtt is there and back, delay is one way")
    if not _said(document, path, "rate"):
        for place in _said(document, path, "queue"):
            raise document.error(place, "a queue forms only in front of a rate: say rate too")
    link = LinkProfile(
        name=name,
        description=block.description,
        source=block.source,
        up=block.direction(block.up),
        down=block.direction(block.down),
    )
    for direction in (link.up, link.down):
        if direction.jitter_s > direction.delay_s:
            values_ms = f"{direction.jitter_s * 1e3:g} ms is more than {direction.delay_s * 1e3:g} ms"
            raise document.error(_said(document, path, "jitter")[-1], f"must not exceed the one-way delay: {values_ms}")
    return link


def _said(document: Document, path: KeyPath, key: str) -> list[KeyPath]:
    """Where the link block at `path` says `key`: for both ways, for up, for down."""
    block = _at(document, path)
    if not isinstance(block, dict):
        return []
    inner = [(path, block), *(((*path, way), block.get(way)) for way in ("up", "down"))]
    return [(*place, key) for place, keys in inner if isinstance(keys, dict) and key in keys]
