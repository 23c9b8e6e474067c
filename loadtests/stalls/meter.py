"""The stall meter: when the machine took a core away, for how long (the idea of jHiccup).

One small process for each core (`sleeper.py`), because a thread of a busy Python process would wait for that process
itself. Each runs at real-time priority where allowed, so an ordinary process that uses the core, such as a slow server
under test, does not delay it: what does is the host of a virtual machine, or a process of higher priority.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from loadtests.stalls.sleeper import RECORD

_SLEEPER = Path(__file__).with_name("sleeper.py")

#: Shorter stalls are of no interest.
_THRESHOLD_NS = 1_000_000


class Stall(NamedTuple):
    """A time in which a core did nothing for us (CLOCK_MONOTONIC)."""

    begin_ns: int
    length_ns: int
    core: int

    @property
    def end_ns(self) -> int:
        return self.begin_ns + self.length_ns


class StallMeter:
    """Measures from entry to exit of a `with` block; forks of the process that entered it may ask for stalls too.

    Beginnings are half a sleeper's period off at most: 0.2 ms where waking up is cheap, about 1 ms on virtual machines
    where it costs 20 µs. Ends are exact.
    """

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        """
        Args:
            cores: which to watch; by default all that this process may use.
        """
        #: Those that are watched.
        self.cores = sorted(os.sched_getaffinity(0)) if cores is None else list(cores)
        self._undo = ExitStack()
        self._files: dict[int, int] = {}
        self._found: dict[int, list[Stall]] = {}
        #: The processes that measure, once entered.
        self.pids: list[int] = []
        #: Whether all of them have real-time priority: without it ordinary processes delay them too.
        self.is_realtime = False

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            sleepers = [self._start(core, undo) for core in self.cores]
            answers = []
            for sleeper in sleepers:
                assert sleeper.stdout is not None, "a pipe was asked for"
                answers.append(sleeper.stdout.read())
            self._undo = undo.pop_all()
        self.pids = [sleeper.pid for sleeper in sleepers]
        self.is_realtime = all(answer == b"realtime" for answer in answers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stalls()  # what was found outlives the files
        self._files.clear()
        self._undo.close()

    def stalls(self) -> list[Stall]:
        """All so far, in order of their beginnings."""
        for core, file in self._files.items():
            known = self._found.setdefault(core, [])
            size = os.fstat(file).st_size // RECORD.size * RECORD.size
            offset = len(known) * RECORD.size
            data = os.pread(file, size - offset, offset)
            known += [Stall(begin_ns, length_ns, core) for begin_ns, length_ns in RECORD.iter_unpack(data)]
        return sorted(stall for stalls in self._found.values() for stall in stalls)

    def _start(self, core: int, undo: ExitStack) -> "subprocess.Popen[bytes]":
        file = os.memfd_create(f"stalls of core {core}")
        undo.callback(os.close, file)
        self._files[core] = file
        command = [sys.executable, "-I", "-S", str(_SLEEPER), str(core), str(_THRESHOLD_NS), str(file)]
        sleeper = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[file],
            process_group=0,  # Ctrl-C is for those who measure something
        )
        undo.callback(_end, sleeper)
        return sleeper


def _end(sleeper: "subprocess.Popen[bytes]") -> None:
    sleeper.kill()
    sleeper.communicate()
