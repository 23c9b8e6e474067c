"""Running as soon as there is something to do: for those whose own delay would be measured as that of a link."""

import contextlib
import os
from collections.abc import Iterator


def run_at_once() -> None:
    """From now on the calling thread is scheduled in real time, and so is what it starts.

    An ordinary user may not, and goes on as before; on a busy machine that shows. The kernel keeps a twentieth of the
    time for others, whatever happens (`sched_rt_runtime_us`).
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


@contextlib.contextmanager
def running_at_once() -> Iterator[None]:
    """The calling thread is scheduled in real time, for work that takes seconds and starts no process."""
    run_at_once()
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
