"""PacketRing: the heads of the packets that a TCP server's port sends us, with the kernel's receive times (packet(7)).

The kernel writes packets into blocks of memory that it shares with us (TPACKET_V3), and hands a block over when it is
full or some time has passed. So however late we read, times are those of the arrival, and a block of a thousand packets
costs a few calls. Only IPv4 without options is seen: the laboratory has nothing else.
"""

import ctypes
import mmap
import select
import socket
import struct
from typing import NamedTuple

import numpy as np

from loadtests.clocks import wall_ahead_ns
from loadtests.run.wire.arrivals import PACKET, Packets

#: 16 MiB hold 120,000 packets that nobody has read yet.
_BLOCK_BYTES, _BLOCKS = 1 << 18, 64
#: A block that is not full is handed over after so long.
RETIRE_MS = 50

# Constants of Linux for which Python has no names.
_SOL_PACKET, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _TPACKET_V3 = 263, 5, 6, 10, 2
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS, _ETH_P_IP = 26, 35, 0x0800
_RING, _STATISTICS = struct.Struct("@7I"), struct.Struct("@3I")
#: tpacket_block_desc, from its status on: that, the number of packets, the place of the first.
_BLOCK, _STATUS_AT, _OURS = struct.Struct("@3I"), 8, 1
#: IP and TCP header without options.
_HEAD_BYTES = 40
#: Before it stand tpacket3_hdr and the link's address.
_HEAD_AT = 96
#: A packet in a block; the fields of its head are in network order.
_ENTRY = np.dtype(
    {
        "names": ["next", "sec", "nsec", "ip_bytes", "server", "port", "sequence", "tcp_words", "flags"],
        "formats": ["=u4", "=u4", "=u4", ">u2", ">u4", ">u2", ">u4", "u1", "u1"],
        "offsets": [0, 4, 8, *(_HEAD_AT + field for field in (2, 12, 22, 24, 32, 33))],
        "itemsize": _HEAD_AT + _HEAD_BYTES,
    }
)
_SYN = 0x02


def _program(port: int) -> list[tuple[int, int, int, int]]:
    """Classic BPF, run by the kernel on each packet: keep segments from `port` that carry data or begin a connection.

    An instruction is code, how many to skip if true and if false, and a constant.
    """
    return [
        (0x30, 0, 0, 0),  # 0: first byte of the IP header
        (0x15, 0, 14, 0x45),  # version 4 without options, or drop
        (0x30, 0, 0, 9),  # protocol
        (0x15, 0, 12, socket.IPPROTO_TCP),
        (0x28, 0, 0, 20),  # source port
        (0x15, 0, 10, port),
        (0x30, 0, 0, 33),  # flags
        (0x45, 7, 0, _SYN),  # keep
        (0x30, 0, 0, 32),  # length of the TCP header, in words of the upper four bits
        (0x74, 0, 0, 2),  # >> 2
        (0x54, 0, 0, 0x3C),  # & 60
        (0x04, 0, 0, 20),  # + that of the IP header
        (0x07, 0, 0, 0),  # X
        (0x28, 0, 0, 2),  # length of the packet
        (0x1D, 1, 0, 0),  # == X: nothing in it, drop
        (0x06, 0, 0, _HEAD_BYTES),  # 15: keep
        (0x06, 0, 0, 0),  # 16: drop
    ]


class RingCounts(NamedTuple):
    """What the kernel counted."""

    #: Those that were in time for the ring, and those that were not.
    packets: int
    dropped: int


class PacketRing:
    """Captures from the moment it is made, on all interfaces of this network namespace."""

    def __init__(self, port: int) -> None:
        """Raises OSError: the system does not let us see packets."""
        # With a protocol, what we send ourselves is not seen.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)  # stamps are made where packets come in
        code = b"".join(struct.pack("@HBBI", *instruction) for instruction in _program(port))
        kept = ctypes.create_string_buffer(code, len(code))
        attached = struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        ring = _RING.pack(_BLOCK_BYTES, _BLOCKS, _BLOCK_BYTES, _BLOCKS, RETIRE_MS, 0, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)
        self._memory = mmap.mmap(self._socket.fileno(), _BLOCK_BYTES * _BLOCKS)
        self._next = 0
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)

    def read(self, timeout_ms: int) -> Packets | None:
        """The packets of the next block, in the order in which they arrived; None if it does not come in time."""
        begin = self._next * _BLOCK_BYTES
        if not self._is_ours(begin):
            self._readable.poll(timeout_ms)
            if not self._is_ours(begin):
                return None
        _, count, first = _BLOCK.unpack_from(self._memory, begin + _STATUS_AT)
        entries = np.frombuffer(self._memory, _ENTRY, count, begin + first)
        assert (entries["next"][:-1] == _ENTRY.itemsize).all(), "all heads are equally long"
        packets = _packets(entries)
        del entries
        self._memory[begin + _STATUS_AT] = 0
        self._next = (self._next + 1) % _BLOCKS
        return packets

    def counts(self) -> RingCounts:
        """Since the last call."""
        counted = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        seen, dropped, _ = _STATISTICS.unpack(counted)
        return RingCounts(seen - dropped, dropped)

    def close(self) -> None:
        self._memory.close()
        self._socket.close()

    def _is_ours(self, begin: int) -> bool:
        return bool(self._memory[begin + _STATUS_AT] & _OURS)


def _packets(entries: Packets) -> Packets:
    packets = np.empty(len(entries), PACKET)
    wall_ns = entries["sec"].astype("i8") * 1_000_000_000 + entries["nsec"]
    packets["at_ns"] = wall_ns - wall_ahead_ns()  # at once, so that a later step of the wall clock does no harm
    packets["length"] = entries["ip_bytes"] - 20 - (entries["tcp_words"] >> 4) * 4
    packets["is_syn"] = entries["flags"] & _SYN
    for field in ("sequence", "server", "port"):
        packets[field] = entries[field]
    return packets
