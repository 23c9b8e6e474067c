"""The figures of a load that goes on, made of batches of records."""

from loadtests.load.live import LiveFigures
from loadtests.samples import TCP


def sample(user: int, sent_bytes: int, retransmissions: int) -> bytes:
    counts = dict.fromkeys(TCP.fields, 0) | {"user": user, "bytes_sent": sent_bytes, "total_retrans": retransmissions}
    return TCP.packer.pack(*counts.values())


def so_far(figures: LiveFigures) -> str:
    return figures.rows()[1]["retransmissions"]


def test_retransmissions_so_far_never_fall() -> None:
    """A connection breaks within a batch, and another one between two; a user who left retransmits no more."""
    figures = LiveFigures(lambda: 0.0)
    told = []
    for batch in (
        [sample(1, 500, 2), sample(2, 900, 4)],
        [sample(1, 800, 3), sample(1, 900, 5), sample(1, 70, 0), sample(2, 950, 4)],
        [sample(1, 90, 1), sample(2, 70, 1)],
        [sample(1, 90, 1)],
        [],
    ):
        figures.take({TCP.name: b"".join(batch)} if batch else {})
        told.append(so_far(figures))
    assert told == ["6", "9", "11", "11", "11"]
