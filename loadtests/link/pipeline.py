"""The effects of one direction of a link, one after the other: a packet goes in now and comes out then, or never."""

from collections.abc import Sequence
from random import Random

from loadtests.link.effects import BurstyLoss, Delay, Effect, RandomLoss, Rate
from loadtests.link.profile import Direction, GilbertElliott


class Pipeline:
    """Decides the fate of each packet at the moment it arrives."""

    def __init__(self, effects: Sequence[Effect]) -> None:
        self.effects = tuple(effects)

    def leaves_ns(self, now_ns: int, ip_bytes: int) -> int | None:
        """When the packet leaves the link; None if it is lost on the way."""
        at_ns = now_ns
        for effect in self.effects:
            leaves_ns = effect.leaves_ns(at_ns, ip_bytes)
            if leaves_ns is None:
                return None
            at_ns = leaves_ns
        return at_ns

    @property
    def dropped_packets(self) -> int:
        """Packets lost so far, whichever effect it was."""
        return sum(effect.dropped for effect in self.effects)


def build_pipeline(direction: Direction, seed: str) -> Pipeline:
    """The effects that `direction` asks for, in netem's order: loss, delay, rate; each with randomness of its own."""
    effects: list[Effect] = []
    if isinstance(direction.loss, GilbertElliott):
        effects.append(BurstyLoss(direction.loss, Random(f"{seed}/loss")))
    elif direction.loss:
        effects.append(RandomLoss(direction.loss, Random(f"{seed}/loss")))
    if direction.delay_s:
        delay_ns, jitter_ns = round(direction.delay_s * 1e9), round(direction.jitter_s * 1e9)
        effects.append(Delay(delay_ns, jitter_ns, Random(f"{seed}/delay")))
    if direction.rate_bps:
        effects.append(Rate(direction.rate_bps, direction.queue_packets))
    return Pipeline(effects)
