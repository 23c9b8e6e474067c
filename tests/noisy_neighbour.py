"""A noisy neighbour: takes the processor away, as others on the same machine do.

    python tests/noisy_neighbour.py --kind bursts --seconds 60
    python tests/noisy_neighbour.py --kind process -- make test

`bursts` takes all cores at once, in real time and above everything else, for 2 to 60 ms at a time and 40 % of the
time: from inside, a host that withholds its cores (`st` in vmstat) looks like that. `process` is one ordinary process
that uses a whole core. It goes on for `--seconds`, or for as long as the command runs, whose exit code it then returns;
it ends with whoever started it.
"""

import argparse
import contextlib
import ctypes
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SHORTEST_S, LONGEST_S = 0.002, 0.060
SHARE = 0.4
#: Microseconds that real-time processes may have of each period; -1: all.
ALLOWED = Path("/proc/sys/kernel/sched_rt_runtime_us")
PERIOD = Path("/proc/sys/kernel/sched_rt_period_us")
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15


def bursts(seed: int, share: float = SHARE) -> Iterator[tuple[float, float]]:
    """Begin and length of each burst, in seconds from the begin of the first gap; without end.

    Lengths are as likely between 2 and 4 ms as between 30 and 60 ms; the gaps between bursts are exponential.
    """
    chance = random.Random(seed)
    mean_s = (LONGEST_S - SHORTEST_S) / math.log(LONGEST_S / SHORTEST_S)
    begin_s = 0.0
    while True:
        begin_s += chance.expovariate(share / (1 - share) / mean_s)
        length_s = SHORTEST_S * (LONGEST_S / SHORTEST_S) ** chance.random()
        yield begin_s, length_s
        begin_s += length_s


def take_core(core: int, start_s: float, seed: int, share: float, note: Path | None) -> None:
    """Occupies a core in each burst, from `start_s` on; all cores have the same bursts. Never returns."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_max(os.SCHED_FIFO)))
    with contextlib.nullcontext() if note is None else open(note, "a", buffering=1) as file:
        for begin_s, length_s in bursts(seed, share):
            time.sleep(max(0.0, start_s + begin_s - time.monotonic()))
            began_s = time.monotonic()
            while (now_s := time.monotonic()) < start_s + begin_s + length_s:
                pass
            if file is not None:
                # Within the buffer of a line: one write, so cores do not mix theirs.
                file.write(f"{round(began_s * 1e9)},{round((now_s - began_s) * 1e9)},{core}\n")


def use_a_core() -> None:
    """One ordinary busy process. Never returns."""
    while True:
        pass


def begin(work: Callable[[], None]) -> int:
    """A child that does `work` and dies with us; its number."""
    parent = os.getpid()
    if (pid := os.fork()) != 0:
        return pid
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"neighbour", 0, 0, 0)
    if os.getppid() == parent:
        work()
    os._exit(0)


def die_with_parent() -> None:
    """The kernel ends this process when whoever started it is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def refusal(share: float) -> str | None:
    """Why this machine does not allow bursts; None if it does."""
    try:
        allowed_us, period_us = int(ALLOWED.read_text()), int(PERIOD.read_text())
        policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_max(os.SCHED_FIFO)))
        os.sched_setscheduler(0, policy, parameter)
    except PermissionError:
        return "bursts need real-time priority: run it as root"
    # Within a period the bursts may add up to more than their mean.
    if 0 <= allowed_us < 1.5 * share * period_us:
        allowed = f"{allowed_us / period_us:.0%} of a core ({ALLOWED})"
        return f"real-time processes may have {allowed}: too little for bursts of {share:.0%}"
    return None


def main() -> int:
    """The command's exit code, 0 without one, 2 if the machine does not allow it."""
    parser = argparse.ArgumentParser(description="Take the processor away, as others on the same machine do.")
    parser.add_argument("--kind", choices=("bursts", "process"), required=True)
    parser.add_argument("--seconds", type=float, help="how long; without it, as long as the command runs")
    parser.add_argument("--share", type=float, default=SHARE, help="of the time, that bursts take: 0.4")
    parser.add_argument("--seed", type=int, default=1, help="of the bursts")
    parser.add_argument("--note", type=Path, help="write each burst there: begin_ns (monotonic), length_ns, core")
    parser.add_argument("command", nargs="*", help="what runs beside it, after --")
    options = parser.parse_args()
    if options.seconds is None and not options.command:
        parser.error("say --seconds, or -- COMMAND")
    if not 0 < options.share < 0.9:
        parser.error(f"--share is above 0 and below 0.9, got {options.share:g}")
    if options.kind == "bursts" and (refused := refusal(options.share)):
        print(f"noisy_neighbour: {refused}", file=sys.stderr)
        return 2
    die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    start_s = time.monotonic() + 0.1
    if options.kind == "process":
        neighbours = [begin(use_a_core)]
    else:
        neighbours = [
            begin(lambda core=core: take_core(core, start_s, options.seed, options.share, options.note))
            for core in sorted(os.sched_getaffinity(0))
        ]
    try:
        return beside(options.command, options.seconds)
    finally:
        for neighbour in neighbours:
            os.kill(neighbour, signal.SIGKILL)
            os.waitpid(neighbour, 0)


def beside(command: list[str], seconds: float | None) -> int:
    """Waits for the end of the command, or so many seconds; the exit code."""
    if not command:
        time.sleep(seconds or 0)
        return 0
    with subprocess.Popen(command, preexec_fn=die_with_parent) as running:
        try:
            return running.wait(seconds)
        except subprocess.TimeoutExpired:
            running.terminate()
            return running.wait()
        except BaseException:
            running.terminate()
            raise


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
