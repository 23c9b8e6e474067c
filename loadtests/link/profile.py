"""What a link does to the packets that cross it.

A :class:`LinkProfile` is one :class:`Direction` for `up` (client → server) and one for `down`; every quantity is a
plain number in the unit its name says. Both backends, `tc netem` and the emulator, are built from the same profile.
`linkfile.py` reads one from YAML.
"""

import msgspec

#: The two ways a client can take.
PATHS = ("primary", "secondary")

#: A rate and its queue count packets as `tc` does on Ethernet: with its header.
ETHERNET_HEADER_BYTES = 14
FULL_PACKET_BYTES = 1500 + ETHERNET_HEADER_BYTES


class GilbertElliott(msgspec.Struct, frozen=True):
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


class Direction(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to packets in one direction."""

    delay_s: float = 0.0
    #: Each packet's delay is uniform in `delay_s ± jitter_s`; packets keep their order.
    jitter_s: float = 0.0
    #: Share of packets lost, each on its own; or in bursts.
    loss: float | GilbertElliott = 0.0
    #: Bits per second; None is unlimited.
    rate_bps: float | None = None
    #: Packets that fit in front of the rate, counting the one being sent; the next is dropped.
    queue_packets: int = 0

    @property
    def expected_loss(self) -> float:
        """Share of packets that the loss model drops in the long run."""
        return self.loss.mean_loss if isinstance(self.loss, GilbertElliott) else self.loss

    def transmission_s(self, ip_bytes: int) -> float:
        """How long a packet of `ip_bytes` occupies the link."""
        return (ip_bytes + ETHERNET_HEADER_BYTES) * 8 / self.rate_bps if self.rate_bps else 0.0

    def __str__(self) -> str:
        said = [f"delay {self.delay_s * 1e3:g} ms" + (f" ± {self.jitter_s * 1e3:g} ms" if self.jitter_s else "")]
        if self.expected_loss:
            bursts = " in bursts" if isinstance(self.loss, GilbertElliott) else ""
            said.append(f"loss {self.expected_loss * 100:.3g} %{bursts}")
        if self.rate_bps:
            said.append(f"rate {self.rate_bps / 1e6:g} Mbit/s with a queue of {self.queue_packets} packets")
        return ", ".join(said)


class LinkProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A link: what it is called, where its numbers come from, what it does in each direction."""

    name: str
    description: str = ""
    source: str = ""
    up: Direction = Direction()
    down: Direction = Direction()

    @property
    def rtt_s(self) -> float:
        """Requested round-trip time of a lone small packet, in seconds."""
        return self.up.delay_s + self.down.delay_s

    def __str__(self) -> str:
        if self.up == self.down:
            return f"{self.name} (each way: {self.up})"
        return f"{self.name} (up: {self.up}; down: {self.down})"
