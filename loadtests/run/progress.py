"""What a run shows while it works: a live line in a terminal, plain lines in a pipe."""

import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.status import Status

from loadtests.percentiles import SHARES, is_known
from loadtests.run.collect import read_records
from loadtests.samples import ECHOED, SENT
from loadtests.scenario.matrix import Trial

#: A pipe gets a line this often, and at each change of state.
_PIPE_INTERVAL_S = 5.0


class Progress:
    """Which trial runs, what it does, and how long the rest will take."""

    def __init__(self, trials: list[Trial]) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._trials = trials
        self._status: Status | None = None
        self._last_line_s = 0.0
        self._trial_started_s = 0.0
        self._spent_s: list[float] = []

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def begin(self, trial: Trial) -> None:
        self._trial_started_s = time.monotonic()
        self.say(trial, "building and calibrating the link" if trial.links else "starting")

    def end(self, trial: Trial, folder: Path) -> None:
        self._spent_s.append(time.monotonic() - self._trial_started_s)
        with_what = ", warm-up too" if trial.scenario.warmup else ""  # which the summary leaves out
        self._console.print(f"{self._head(trial)}: {_so_far(folder)}{with_what}")

    def say(self, trial: Trial, state: str) -> None:
        """A change of state."""
        self._show(f"{self._head(trial)}: {state}")

    def follow(self, trial: Trial, folder: Path) -> None:
        """Messages and response time so far; call it about once a second."""
        if self._status or time.monotonic() - self._last_line_s >= _PIPE_INTERVAL_S:
            self._show(f"{self._head(trial)}: {_so_far(folder)}; about {self._left_s(trial):.0f} s left")

    def note(self, text: str) -> None:
        """Something that stays on the screen."""
        self._console.print(text)

    def _show(self, text: str) -> None:
        self._last_line_s = time.monotonic()
        if self._status:
            self._status.update(text)
        else:
            self._console.print(text)

    def _head(self, trial: Trial) -> str:
        # One alone may be any of the scenario's (--trial); those that are left need not be in order (--resume).
        of_all = f" of {max(one.number for one in self._trials)}" if len(self._trials) > 1 else ""
        return f"trial {trial.number}{of_all}, {trial.name}"

    def _left_s(self, trial: Trial) -> float:
        """From the time that finished trials took, or from the scenario while none has finished."""
        expected_s = np.mean(self._spent_s) if self._spent_s else trial.scenario.duration_s + 9
        spent_s = time.monotonic() - self._trial_started_s
        after_it = len(self._trials) - 1 - self._trials.index(trial)
        return float(max(expected_s - spent_s, 0) + expected_s * after_it)


def _so_far(folder: Path) -> str:
    sent = len(read_records(folder, SENT))
    echoed = read_records(folder, ECHOED)
    response_ms = (echoed["received_ns"] - echoed["intended_ns"]) / 1e6
    known = [(name, SHARES[name]) for name in ("p50", "p95", "p99") if is_known(len(echoed), SHARES[name])]
    told = ", ".join(f"{name} {response_ms.quantile(share):.1f} ms" for name, share in known)
    return f"{sent} messages" + (f", response time {told}" if told else "")
