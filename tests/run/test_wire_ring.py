"""Packets of a real connection, seen in a real namespace, beside the kernel's own stamps of the same segments."""

import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from link_helpers import in_lab

from loadtests.clocks import wall_ahead_ns
from loadtests.link.lab import Lab, open_lab
from loadtests.link.linkfile import load_profile
from loadtests.run.wire.arrivals import NEVER, Arrivals, Packets, key_of
from loadtests.run.wire.watch import Watched, watched_packets, watching

PORT = 5000
SO_TIMESTAMPNS = 35
#: How far apart two mappings of the same stamp from clock to clock may be.
CLOCKS_NS = 1_000_000


def talk(lab: Lab, lines: list[bytes]) -> tuple[int, list[int]]:
    """Send lines from the server's side, the next when one has come; the client's port, and the kernel's stamps."""
    with lab.server.entered():
        listener = socket.create_server((lab.addresses["primary"], PORT))
    with lab.client.entered():
        client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    stamps = []
    with listener, client:
        client.connect((lab.addresses["primary"], PORT))
        peer, _ = listener.accept()
        with peer:
            for line in lines:
                peer.sendall(line)
                left = len(line)
                while left:
                    data, control, _, _ = client.recvmsg(left, 64)
                    left -= len(data)
                ((_, _, stamp),) = control
                seconds, nanoseconds = struct.unpack("@ll", stamp)
                stamps.append(seconds * 1_000_000_000 + nanoseconds - wall_ahead_ns())
                client.sendall(b"seen\n")
            return client.getsockname()[1], stamps


def capture(folder: Path, link: str, lines: list[bytes]) -> tuple[Watched, int, list[int]]:
    """A connection with these lines, while packets are captured."""

    def inside() -> tuple[Watched, int, list[int]]:
        with open_lab({"primary": load_profile(link)}, "emulator") as lab, watching(lab, folder, PORT) as watched:
            port, stamps = talk(lab, lines)
        return watched, port, stamps

    return in_lab(inside)


def times_of(
    packets: Packets, port: int, lines: list[bytes], *, doubtful: bool = False
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    arrivals = Arrivals(packets, repeats_are_doubtful=doubtful)
    address = int.from_bytes(socket.inet_aton("10.77.1.2"), "big")
    ends = np.cumsum([len(line) for line in lines])
    key = key_of(np.full(len(lines), address), np.full(len(lines), port))
    stream = arrivals.stream(key, np.full(len(lines), NEVER - 1))
    return arrivals.readable_ns(stream, ends, np.full(len(lines), NEVER - 1))


@pytest.mark.parametrize("link", ["lan", "lossy-wifi"])
def test_the_packet_that_completes_a_line_has_the_time_of_the_kernels_stamp(tmp_path: Path, link: str) -> None:
    """Lines of one packet and of many; on the bad link, packets of a line are lost and come again after others."""
    lines = [b"x" * size + b"\n" for size in [1, 100, 1447, 1448, 20_000] * 4]
    watched, port, stamps = capture(tmp_path, link, lines)
    assert not watched.problem
    kept = watched_packets(tmp_path)
    assert kept is not None
    assert kept[0] == watched
    assert watched.packets == len(kept[1])
    assert watched.dropped == 0
    assert kept[1]["port"].tolist() == [port] * len(kept[1]), "nothing but what the server sends"
    found = times_of(kept[1], port, lines)
    late_ns = found - np.array(stamps)
    # Read after all of a line had come, a stamp is that of the line's last segment, which may have come before another.
    assert (late_ns > -CLOCKS_NS).all()
    assert np.median(np.abs(late_ns)) < CLOCKS_NS
    assert (np.abs(late_ns) < CLOCKS_NS).all() or link != "lan"


def test_where_packets_cannot_be_kept_the_work_goes_on_and_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "wire.packets").mkdir()
    watched, _, stamps = capture(tmp_path, "lan", [b"x\n"])
    assert len(stamps) == 1
    assert "Is a directory" in watched.problem
    assert watched_packets(tmp_path) is None


def test_a_folder_in_which_nothing_was_captured(tmp_path: Path) -> None:
    assert watched_packets(tmp_path) is None
