"""Tally: the response times of one's own messages, for `/stats`. Pure."""

import math
from array import array

from chat.client.events import PathName
from chat.net.tcpinfo import TcpInfo
from chat.words import count


class Tally:
    """Collects response times and their jitter.

    Jitter is that of RFC 3550, 6.4.1: a running mean, with weight 1/16, of the difference between one response time
    and the next over the same connection.
    """

    def __init__(self) -> None:
        self._times_ms = array("d")
        self._last_ms: dict[str, float] = {}
        self._jitter_ms: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Tally of {len(self._times_ms)}>"

    def add(self, path: str, response_time_ms: float) -> None:
        """An echo came back over this connection after so long."""
        self._times_ms.append(response_time_ms)
        difference = abs(response_time_ms - self._last_ms.get(path, response_time_ms))
        jitter = self._jitter_ms.get(path, 0.0)
        self._jitter_ms[path] = jitter + (difference - jitter) / 16
        self._last_ms[path] = response_time_ms

    def percentile_ms(self, percent: float) -> float:
        """The smallest response time that this share of all did not exceed (nearest rank)."""
        ordered = sorted(self._times_ms)
        return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]

    def report(self, tcp: dict[PathName, TcpInfo]) -> list[str]:
        """Lines for a person: all messages, then each open connection."""
        return [self._messages(), *(f"{path}: {self.connection(path, info)}" for path, info in tcp.items())]

    def _messages(self) -> str:
        times = self._times_ms
        if not times:
            return "no message has come back yet"
        return (
            f"{count(len(times), 'message')}, response time in ms: average {sum(times) / len(times):.1f}, "
            f"minimum {min(times):.1f}, maximum {max(times):.1f}, "
            f"p50 {self.percentile_ms(50):.1f}, p99 {self.percentile_ms(99):.1f}"
        )

    def rtt_ms(self, path: str, info: TcpInfo | None) -> float | None:
        """The round-trip time as TCP smooths it; None while it would mislead.

        Where no echo comes first, the server answers our copies with nothing: the kernel then times delayed
        acknowledgements, not the way.
        """
        if info is None or info.rtt_us is None or path not in self._jitter_ms:
            return None
        return info.rtt_us / 1000

    def connection(self, path: str, info: TcpInfo) -> str:
        """What there is to say about one connection."""
        rtt_ms = self.rtt_ms(path, info)
        rtt = "unknown" if rtt_ms is None else f"{rtt_ms:.1f} ms"
        jitter = f"{self._jitter_ms[path]:.1f} ms" if path in self._jitter_ms else "unknown"
        retransmissions = "unknown" if info.total_retrans is None else info.total_retrans
        return f"rtt {rtt}, jitter {jitter}, retransmissions {retransmissions}"
