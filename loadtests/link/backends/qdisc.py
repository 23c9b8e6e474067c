"""A direction of a link as `tc netem` qdiscs: the commands that make them, and whether the kernel's answer agrees."""

import math
from typing import Any

import msgspec

from loadtests.link.model.distributions import Distribution
from loadtests.link.model.profile import Direction, GilbertElliott, LinkProfile, TimedBursts

#: The delay line itself never loses a packet: its limit is out of reach.
_DELAY_LINE_PACKETS = 1_000_000
#: netem keeps packets in order only if it has a rate; at this one a full-size packet takes about a microsecond.
_ORDER_KEEPING_BPS = 10e9
#: `tc` prints times in whole microseconds, rounded down: they are off by less than two.
_TIME_PRECISION_S = 2e-6


class Netem(msgspec.Struct, frozen=True, kw_only=True):
    """One netem qdisc, every parameter said: netem keeps what a later command does not mention."""

    handle: str
    #: `root`, or the class of the qdisc above.
    parent: str
    limit_packets: int
    delay_s: float = 0.0
    jitter_s: float = 0.0
    distribution: Distribution = "uniform"
    loss: float | GilbertElliott = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    rate_bps: float

    def command(self, device: str) -> str:
        """The `tc` command that makes `device` send through this qdisc."""
        place = "root" if self.parent == "root" else f"parent {self.parent}"
        # A table needs a jitter; uniform is what netem does without one.
        table = f" distribution {self.distribution}" if self.jitter_s and self.distribution != "uniform" else ""
        return (
            f"qdisc replace dev {device} {place} handle {self.handle} netem limit {self.limit_packets}"
            f" delay {self.delay_s * 1e6:.3f}us {self.jitter_s * 1e6:.3f}us{table} loss {self._loss_arguments()}"
            f" reorder {_percent(self.reorder)} duplicate {_percent(self.duplicate)} corrupt {_percent(self.corrupt)}"
            f" rate {self.rate_bps:.0f}bit"
        )

    def difference(self, options: dict[str, Any] | None) -> str | None:
        """What the `options` that `tc -json` reads back say otherwise; None if they agree."""
        if options is None:
            return f"qdisc {self.handle} is missing"
        delay, gemodel = options.get("delay", {}), options.get("loss-gemodel", {})
        made = {
            "limit": options["limit"],
            "delay": delay.get("delay", 0),
            "jitter": delay.get("jitter", 0),
            "loss": options.get("loss-random", {}).get("loss", 0),
            **{key: options.get(key, {}).get(key, 0) for key in ("reorder", "duplicate", "corrupt")},
            "rate": options.get("rate", {}).get("rate", 0) * 8,
            **{key: gemodel.get(key, 0) for key in ("p", "r", "1-h", "1-k")},
        }
        for key, wanted in self._wanted().items():
            precision = _TIME_PRECISION_S if key in ("delay", "jitter") else 0
            if not math.isclose(wanted, made[key], rel_tol=1e-3, abs_tol=precision):
                return f"{key} is {made[key]:g}, not {wanted:g}"
        return None

    def _wanted(self) -> dict[str, float]:
        model = self.loss if isinstance(self.loss, GilbertElliott) else GilbertElliott(0, 0, 0, 0)
        return {
            "limit": self.limit_packets,
            "delay": self.delay_s,
            "jitter": self.jitter_s,
            "loss": self.loss if isinstance(self.loss, float) else 0.0,
            "reorder": self.reorder,
            "duplicate": self.duplicate,
            "corrupt": self.corrupt,
            "rate": self.rate_bps,
            "p": model.p,
            "r": model.r,
            "1-h": model.bad_loss,
            "1-k": model.good_loss,
        }

    def _loss_arguments(self) -> str:
        if isinstance(self.loss, GilbertElliott):
            model = self.loss
            return "gemodel " + " ".join(_percent(v) for v in (model.p, model.r, model.bad_loss, model.good_loss))
        return f"random {_percent(self.loss)}"


def netem_tree(direction: Direction, parent: str = "root", *, queued: bool = False) -> list[Netem]:
    """The qdiscs of `direction`: loss and delay, and under it the rate with its queue.

    Two, because the one `limit` of a netem counts what is delayed together with what queues for the rate.
    Args:
        parent: where they hang.
        queued: the second is wanted without a rate too, since the link has one at some other time.
    """
    assert not isinstance(direction.loss, TimedBursts), "refused before"
    tree = [
        Netem(
            handle="1:",
            parent=parent,
            limit_packets=_DELAY_LINE_PACKETS,
            delay_s=direction.delay_s,
            jitter_s=direction.jitter_s,
            distribution=direction.distribution,
            loss=direction.loss,
            reorder=direction.reorder,
            duplicate=direction.duplicate,
            corrupt=direction.corrupt,
            rate_bps=_ORDER_KEEPING_BPS if direction.keep_order else 0,
        )
    ]
    if direction.rate_bps or queued:
        queue_packets = direction.queue_packets if direction.rate_bps else _DELAY_LINE_PACKETS
        tree.append(Netem(handle="2:", parent="1:1", limit_packets=queue_packets, rate_bps=direction.rate_bps or 0))
    return tree


def beyond_netem(link: LinkProfile) -> str | None:
    """What netem cannot do of this link, now or later; None if it can do all."""
    for direction in (*link.moments("up"), *link.moments("down")):
        if isinstance(direction.loss, TimedBursts):
            return "netem's bursts are counted in packets (p and r), not in time (good and bad)"
        if direction.trace:
            return "netem has a constant rate, it cannot follow a trace"
        if direction.reorder and direction.rate_bps:
            return "netem lets a packet that overtakes (reorder) skip the rate too"
    return None


def _percent(share: float) -> str:
    return f"{share * 100:.9g}%"
