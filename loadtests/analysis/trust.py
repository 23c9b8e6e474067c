"""When the numbers of a run must not be believed: a list of reasons, each a sentence."""

import pandas as pd

from loadtests.analysis.read import Run
from loadtests.samples import USERS_PER_WORKER

#: A generator busier than this delays its own receipt of echoes by milliseconds in the tail.
_GENERATOR_CPU_PERCENT = 70.0
#: With less of the machine idle, whoever used the rest disturbed us.
_MACHINE_BUSY_SHARE = 0.9
#: The schedule may lag by this much, or by half of the delay that is measured (medians: a tail shows by itself).
_LAG_MS, _LAG_SHARE = 1.0, 0.5
#: Wall clock and monotonic clock may drift apart by this much during a trial (NTP slews 0.5 ms a second).
_CLOCK_STEP_MS = 50.0
#: An emulator this late has become a part of the delay.
_EMULATOR_LATE_MS = 5.0


def doubts(run: Run) -> list[str]:
    """Why the run must not be believed; empty if there is no reason."""
    found = [f"{trial.name}: the trial was {trial.state}" for trial in run.manifest.trials if trial.state != "finished"]
    return [*found, *_links(run), *_generator(run), *_machine(run), *_schedule(run), *_clock(run), *_emulator(run)]


def _links(run: Run) -> list[str]:
    rows = run.table("link")
    return [
        f"{row.variant}: {row.when} the load the link was off: {row.path} {row.direction} {row.metric} "
        f"is {row.measured:.4g}, allowed {row.low:.4g} to {row.high:.4g}"
        for row in rows[rows["within"].eq(False)].itertuples()
    ]


def _generator(run: Run) -> list[str]:
    """Each load process has a core's worth of Python; one that is too busy spoils its own users' numbers."""
    load = _steady(run, "load").groupby(["variant", "process"], observed=True)["cpu_percent"].mean()
    return [
        f"{variant}: the load generator{_worker(process)} used {percent:.0f} % of a core, "
        f"more than {_GENERATOR_CPU_PERCENT:.0f} %"
        for variant, process, percent in load[load > _GENERATOR_CPU_PERCENT].reset_index().itertuples(index=False)
    ]


def _machine(run: Run) -> list[str]:
    """Foreign load matters once the machine has no core left for us."""
    whole_percent = 100.0 * run.manifest.cores
    busy = _steady(run, "machine").groupby("variant", observed=True)["cpu_percent"].mean()
    return [
        f"{variant}: {percent / whole_percent:.0%} of the machine was busy; end what else runs, or load less"
        for variant, percent in busy[busy > _MACHINE_BUSY_SHARE * whole_percent].items()
    ]


def _schedule(run: Run) -> list[str]:
    messages = run.measured("user", "send_lag_ms", "service_time_ms")
    processes = messages["user"] // USERS_PER_WORKER
    is_many = processes.any()
    groups = messages.groupby(["variant", processes], observed=True)
    medians = groups[["send_lag_ms", "service_time_ms"]].median().reset_index()
    return [
        f"{variant}: messages{f' of worker {process}' if is_many else ''} were sent {lag:.1f} ms late "
        f"at a service time of {service:.1f} ms"
        for variant, process, lag, service in medians.itertuples(index=False)
        if lag > max(_LAG_MS, _LAG_SHARE * service)
    ]


def _clock(run: Run) -> list[str]:
    return [
        f"{trial.name}: the wall clock was stepped by {trial.clock_step_ms:.0f} ms"
        for trial in run.manifest.trials
        if abs(trial.clock_step_ms) > _CLOCK_STEP_MS
    ]


def _emulator(run: Run) -> list[str]:
    return [
        f"{trial.name}: the emulator of {counters.path} was late: p99 {(counters.lateness_p99_us or 0) / 1e3:.1f} ms"
        for trial in run.manifest.trials
        for counters in trial.link_counters
        if (counters.lateness_p99_us or 0) > _EMULATOR_LATE_MS * 1e3
    ]


def _steady(run: Run, kind: str) -> pd.DataFrame:
    """CPU samples of `machine`, or of all processes `load`, `load-0`, …, after the ramp.

    The ramp's one busy second is not what the trial was like.
    """
    machine = run.table("machine")
    is_kind = machine["process"].astype(str).str.partition("-")[0] == kind
    return machine[is_kind & (machine["time_s"] >= 1.0)]


def _worker(process: str) -> str:
    """Of which worker, if there are several: ` of worker 2` for `load-2`."""
    number = process.partition("-")[2]
    return f" of worker {number}" if number else ""
