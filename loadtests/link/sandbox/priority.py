"""Real-time priority: for processes whose own delay would be measured as that of a link."""

import contextlib
import os
from collections.abc import Iterator


def set_realtime_priority() -> None:
    """Schedule the calling thread, and what it starts, as SCHED_RR from now on.

    An ordinary user may not, and goes on with normal priority; on a busy machine that shows. The kernel keeps a
    twentieth of the time for others, whatever happens (`sched_rt_runtime_us`).
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


@contextlib.contextmanager
def realtime_priority() -> Iterator[None]:
    """Real-time priority within this block, for work that takes seconds and starts no process."""
    set_realtime_priority()
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
