"""TCP_INFO: what the kernel knows about a connection.

Names are those of `struct tcp_info` in <linux/tcp.h>, without `tcpi_` and with a unit. The struct has grown with every
kernel, so a field beyond the length that this kernel returned is None.
"""

import socket
import struct
import sys
from dataclasses import dataclass, field, fields

#: Longer than any kernel's struct so far (6.18 returns 280 bytes).
_BUFFER_BYTES = 512


def _at(offset: int, code: str) -> int | None:
    """A field at this offset of the struct: `I` is a u32, `Q` a u64."""
    return field(default=None, metadata={"offset": offset, "format": struct.Struct("=" + code)})


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """A snapshot of one connection, as this end sees it. Counters run from the start of the connection."""

    #: Current retransmission time-out.
    rto_us: int | None = _at(8, "I")
    snd_mss_bytes: int | None = _at(16, "I")
    #: Segments sent and not acknowledged.
    unacked: int | None = _at(24, "I")
    #: Segments believed lost and not yet retransmitted.
    lost: int | None = _at(32, "I")
    #: Smoothed round-trip time, and its mean deviation (RFC 6298).
    rtt_us: int | None = _at(68, "I")
    rttvar_us: int | None = _at(72, "I")
    #: Congestion window, in segments.
    snd_cwnd: int | None = _at(80, "I")
    #: How many segments out of order are taken for reordering rather than loss.
    reordering: int | None = _at(88, "I")
    #: Segments sent again.
    total_retrans: int | None = _at(100, "I")
    bytes_acked: int | None = _at(120, "Q")
    bytes_received: int | None = _at(128, "Q")
    segs_out: int | None = _at(136, "I")
    segs_in: int | None = _at(140, "I")
    #: Bytes in the send buffer that were not sent even once.
    notsent_bytes: int | None = _at(144, "I")
    #: Smallest round-trip time seen.
    min_rtt_us: int | None = _at(148, "I")
    #: Goodput as the congestion control measures it, bytes per second.
    delivery_rate_Bps: int | None = _at(160, "Q")
    bytes_sent: int | None = _at(200, "Q")
    bytes_retrans: int | None = _at(208, "Q")
    #: Times a segment arrived that had been received already: a retransmission that was not needed.
    dsack_dups: int | None = _at(216, "I")
    #: Times reordering was seen.
    reord_seen: int | None = _at(220, "I")
    #: Segments that arrived while one before them was missing.
    rcv_ooopack: int | None = _at(224, "I")

    @classmethod
    def of(cls, sock: socket.socket) -> "TcpInfo | None":
        """Ask the kernel; None where it is not Linux, or the socket is no TCP connection any more."""
        if sys.platform != "linux":
            return None
        try:
            return cls.parse(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BUFFER_BYTES))
        except OSError:
            return None

    @classmethod
    def parse(cls, data: bytes) -> "TcpInfo":
        """Read the struct, however short it is."""
        values = {}
        for each in fields(cls):
            offset, code = each.metadata["offset"], each.metadata["format"]
            if offset + code.size <= len(data):
                (values[each.name],) = code.unpack_from(data, offset)
        return cls(**values)
