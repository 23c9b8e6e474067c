"""The effects of one direction of a path in a row, and what is done to the packets themselves."""

from collections.abc import Iterable
from random import Random

from loadtests.link.model.effects import BurstyLoss, Delay, Effect, Opportunities, RandomLoss, Rate, TimedLoss
from loadtests.link.model.profile import Direction

#: In netem's order: loss, delay, rate.
EFFECTS: tuple[type[Effect], ...] = (RandomLoss, BurstyLoss, TimedLoss, Delay, Rate, Opportunities)
QUEUES = (Rate, Opportunities)


class Pipeline:
    """Decides the fate of each packet at the moment it arrives, if no packet overtakes another.

    Where packets may, only :meth:`reaches_queue_ns` is decided then; :attr:`queue` decides the rest when the packet
    gets there, since nobody knows before in which order they do.

    Each effect has randomness of its own, made of `seed`, so changing one leaves the decisions of the others alone.
    """

    def __init__(self, direction: Direction, seed: str, at_ns: int = 0) -> None:
        self._seed = seed
        self._made: dict[type[Effect], Effect] = {}
        self._copying = Random(f"{seed}/copying")
        self.set(direction, at_ns)

    def set(self, direction: Direction, at_ns: int) -> None:
        """Do what `direction` says, from `at_ns` on; times that were decided before stay."""
        effects = [
            self._made.setdefault(kind, kind(Random(f"{self._seed}/{kind.__name__}")))
            for kind in EFFECTS
            # A delay that became 0 still keeps the order: what was delayed before it did is not there yet.
            if kind.wanted(direction) or (kind is Delay and kind in self._made)
        ]
        for effect in effects:
            effect.set(direction, at_ns)
        #: The last effect, if packets wait for each other there.
        self.queue = effects.pop() if effects and isinstance(effects[-1], QUEUES) else None
        self._before_queue = tuple(effects)
        self._duplicate, self._corrupt = direction.duplicate, direction.corrupt
        #: Whether packets must go through `copies` first; most links leave them alone.
        self.copies_packets = bool(direction.duplicate or direction.corrupt)

    def leaves_ns(self, now_ns: int, ip_bytes: int) -> int | None:
        """When the packet leaves the link; None if it is lost on the way. For links on which none overtakes."""
        at_ns = self.reaches_queue_ns(now_ns, ip_bytes)
        return at_ns if at_ns is None or self.queue is None else self.queue.leaves_ns(at_ns, ip_bytes)

    def reaches_queue_ns(self, now_ns: int, ip_bytes: int) -> int | None:
        """When the packet comes to the :attr:`queue`, or leaves if there is none; None if it is lost before."""
        at_ns = now_ns
        for effect in self._before_queue:
            leaves_ns = effect.leaves_ns(at_ns, ip_bytes)
            if leaves_ns is None:
                return None
            at_ns = leaves_ns
        return at_ns

    def copies(self, packet: bytes) -> list[bytes]:
        """What enters the link for this packet: perhaps a second copy, perhaps a flipped bit; each has its own fate."""
        packets = [packet, packet] if self._copying.random() < self._duplicate else [packet]
        return [self._flipped(one) if self._copying.random() < self._corrupt else one for one in packets]

    def _flipped(self, packet: bytes) -> bytes:
        changed = bytearray(packet)
        changed[self._copying.randrange(len(changed))] ^= 1 << self._copying.randrange(8)
        return bytes(changed)

    @property
    def dropped_packets(self) -> int:
        """Packets lost so far, whichever effect it was."""
        return sum(effect.dropped for effect in self._made.values())


def carried(pipeline: Pipeline, sendings: Iterable[tuple[int, int]], ip_bytes: int) -> list[tuple[int, int, int]]:
    """What becomes of packets that are all known beforehand.

    Args:
        sendings: when each is sent (ns), rising, and a number for it.
        ip_bytes: the length of each.

    Returns: when each leaves that is not lost, its number, when it was sent; in the order in which they leave.
    """
    reached = []
    for sent_ns, number in sendings:
        at_ns = pipeline.reaches_queue_ns(sent_ns, ip_bytes)
        if at_ns is not None:
            reached.append((at_ns, number, sent_ns))
    if pipeline.queue is None:
        return sorted(reached)
    left = [(pipeline.queue.leaves_ns(at_ns, ip_bytes), number, sent_ns) for at_ns, number, sent_ns in sorted(reached)]
    return [(left_ns, number, sent_ns) for left_ns, number, sent_ns in left if left_ns is not None]
