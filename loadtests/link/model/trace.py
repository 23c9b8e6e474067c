"""Traces of real links, in the format of mahimahi: each line is a millisecond at which one packet could be sent.

A line is an opportunity for 1504 bytes (a full packet and the four bytes that mahimahi's TUN device puts before it);
several small packets share one, a packet that does not fit uses several. An opportunity that finds the queue empty is
lost. After the last line the trace begins again.
"""

from pathlib import Path

import msgspec

from loadtests.link.model.profile import OPPORTUNITY_BYTES, Direction


def read_trace(path: str) -> list[int]:
    """The milliseconds of the opportunities, rising; raises ValueError: it is no trace (the user's fault)."""
    try:
        times_ms = [int(line) for line in Path(path).read_text(encoding="ascii").split()]
    except OSError as error:
        raise ValueError(f"{path!r}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path!r}: expected one whole number of milliseconds per line") from None
    if not times_ms or times_ms[-1] <= 0 or times_ms[0] < 0 or times_ms != sorted(times_ms):
        raise ValueError(f"{path!r}: expected milliseconds that never fall and end above 0")
    return times_ms


def with_trace(direction: Direction) -> Direction:
    """The direction as the emulator needs it: with the lines of its trace, if it has one. Raises as `read_trace`."""
    if direction.trace is None:
        return direction
    times_ms = tuple(read_trace(direction.trace.path))
    return msgspec.structs.replace(direction, trace=msgspec.structs.replace(direction.trace, times_ms=times_ms))


def mean_bps(times_ms: list[int]) -> float:
    """What the trace carries on average, if there is always something to send."""
    return len(times_ms) * OPPORTUNITY_BYTES * 8e3 / times_ms[-1]
