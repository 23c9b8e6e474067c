"""What speaks against the numbers of a run: one sentence for each cause, the most important first, with its details."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from chat.words import count
from loadtests.analysis.read import Run
from loadtests.analysis.stats import SHARES
from loadtests.percentiles import least_count
from loadtests.run.attempts import in_vain
from loadtests.samples import USERS_PER_WORKER
from loadtests.scenario.scenario import TALKING
from loadtests.scenario.thresholds import Threshold

#: Older tables do not say who was let in.
_LET_IN_SCHEMA = 5
#: A generator busier than this delays its own receipt of echoes by milliseconds in the tail.
_GENERATOR_CPU_PERCENT = 70.0
#: With less of the machine idle, whoever used the rest disturbed us.
_MACHINE_BUSY_SHARE = 0.9
#: A process that is not ours is named from here on.
_OTHER_PERCENT = 25.0
#: Fewer disturbed messages are nothing to speak of: they are left out.
_DISTURBED_SHARE = 0.02
#: Of a variant's messages at least this share must be undisturbed.
_LEAST_LEFT = 0.5
#: The schedule may lag by this much, or by half of the delay that is measured (medians: a tail shows by itself).
_LAG_MS, _LAG_SHARE = 1.0, 0.5
#: From this share of messages on, p99 tells what they waited for.
_WAITED_SHARE = 0.01
#: Wall clock and monotonic clock may drift apart by this much during a trial (NTP slews 0.5 ms a second).
_CLOCK_STEP_MS = 50.0
#: A shorter stall of a core is none.
_STALL_MS = 1.0
#: An emulator this late has become a part of the delay.
_EMULATOR_LATE_MS = 5.0


@dataclass(frozen=True)
class Doubt:
    """One cause."""

    sentence: str
    #: Each time it was seen.
    details: tuple[str, ...] = ()
    #: Whether the run must not be believed; otherwise what is disturbed is left out, and the rest can be.
    is_fatal: bool = True

    def __str__(self) -> str:
        return f"{'NOT TRUSTWORTHY' if self.is_fatal else 'note'}: {self.sentence}"


def doubts(run: Run) -> list[Doubt]:
    """Every cause once; those that forbid to believe the run come first."""
    causes = (
        _unfinished,
        _not_let_in,
        _silent,
        _too_little_left,
        _links,
        _generator,
        _schedule,
        _clock,
        _stalls,
        _others,
        _emulator,
    )
    found = [doubt for cause in causes for doubt in cause(run)]
    return sorted(found, key=lambda doubt: not doubt.is_fatal)


def _one(sentence: str, details: Iterable[str], *, is_fatal: bool = True) -> list[Doubt]:
    """The doubt whose sentence ends with the first of the details, if there are any."""
    details = list(details)
    if not details:
        return []
    more = f" (and {len(details) - 1} more like it)" if len(details) > 1 else ""
    return [Doubt(f"{sentence}{details[0]}{more}", tuple(details), is_fatal)]


def _unfinished(run: Run) -> list[Doubt]:
    if not run.manifest.trials:
        return [Doubt("no trial came to its end")]
    ended = ("finished", "rejected")
    found = [
        f"{one.name}: the trial {one.state if one.state == 'failed' else f'was {one.state}'}"
        for one in run.manifest.trials
        if one.state not in ended
    ]
    if run.manifest.state == "running":
        found.append(
            "the run did not come to its end: it still goes on, or was killed; chatlab run --resume goes on with it"
        )
    return _one("", found)


def _not_let_in(run: Run) -> list[Doubt]:
    """In an open workload what they were to say is lost; else no table has anything of them, and no threshold fails."""
    if run.manifest.schema_version < _LET_IN_SCHEMA:
        return []
    clients = run.table("clients", ["registration_ms"])
    is_in = (clients["registration_ms"] > 0).groupby([clients["trial"], clients["variant"]], observed=True)
    counts = is_in.agg(["sum", "size"]).reset_index()
    return _one(
        "",
        (
            f"{variant}: {users - let_in} of {count(users, 'user')} {'was' if users == 1 else 'were'} not let in"
            for _, variant, let_in, users in counts.itertuples(index=False)
            if let_in < users
        ),
    )


def _silent(run: Run) -> list[Doubt]:
    """A variant without any message keeps every threshold, and says nothing."""
    spoke = set(run.after_warmup("outcome")["variant"])
    finished = {trial.name: trial for trial in run.manifest.trials if trial.state == "finished"}
    return _one(
        "",
        (
            f"{name}: nobody said anything after the warm-up"
            for name, trial in finished.items()
            if name not in spoke and _talks(run.manifest.scenario, trial.variant)
        ),
    )


def _talks(scenario: dict[str, Any], variant: dict[str, str]) -> bool:
    """Whether anybody is to say something; `users`, or one class of them, may be varied."""
    users = variant.get("users", scenario.get("users", "BroadcastUser"))
    return any(name in f"{users} {[*variant]}" for name in TALKING)


def _too_little_left(run: Run) -> list[Doubt]:
    """Half of the messages, or fewer than the percentiles that thresholds ask for need, where there were enough."""
    thresholds = [Threshold.from_yaml(text) for text in run.manifest.scenario.get("thresholds", ())]
    needed = max((least_count(SHARES[one.column]) for one in thresholds if one.column in SHARES), default=0)
    more = "" if in_vain(run.manifest.trials) else "; repeat more: --repeat 5"
    details = []
    for variant, rows in run.after_warmup("disturbed").groupby("variant", observed=True):
        left = int((rows["disturbed"].fillna(0) == 0).sum())
        if left < _LEAST_LEFT * len(rows) or left < needed <= len(rows):
            details.append(f"{variant}: only {left} of {len(rows)} messages are undisturbed{more}")
    return _one("", details)


def _links(run: Run) -> list[Doubt]:
    """A link that is off is its own fault, unless the machine stalled whenever it was measured."""
    rows = run.table("link")
    off = rows[rows["within"].eq(False)]
    by_link: list[str] = []
    by_machine: list[str] = []
    for row in off.itertuples():
        detail = (
            f"{row.variant}: {row.when} the load the link was off: {row.path} {row.direction} {row.metric} "
            f"is {row.measured:.4g}, allowed {row.low:.4g} to {row.high:.4g}"
        )
        (by_machine if str(row.disturbed) == "True" else by_link).append(detail)
    return _one("", by_link) + _one("the machine stalled while a link was measured: ", by_machine, is_fatal=False)


def _generator(run: Run) -> list[Doubt]:
    """Each load process has a core's worth of Python; one that is too busy spoils its own users' numbers."""
    load = _steady(run, "load").groupby(["variant", "process"], observed=True)["cpu_percent"].mean()
    busy = load[load > _GENERATOR_CPU_PERCENT].sort_values(ascending=False).reset_index()
    return _one(
        "",
        (
            f"{variant}: the load generator{_worker(process)} used {percent:.0f} % of a core, "
            f"more than {_GENERATOR_CPU_PERCENT:.0f} %"
            for variant, process, percent in busy.itertuples(index=False)
        ),
    )


def _schedule(run: Run) -> list[Doubt]:
    """Who was not let in yet was no late generator; but the response times tell of that waiting, not of the link's."""
    messages = run.measured("user", "intended_s", "send_lag_ms", "service_time_ms")
    keys = ["trial", "user"]
    let_in = run.rows("clients", ["user", "let_in_s"]).drop_duplicates(keys)
    let_in_s = let_in.set_index(keys)["let_in_s"].reindex(pd.MultiIndex.from_frame(messages[keys]))
    let_in_s = let_in_s.set_axis(messages.index)
    waits_s = (let_in_s - messages["intended_s"]).where(let_in_s > messages["intended_s"])
    processes = messages["user"] // USERS_PER_WORKER
    is_many = processes.any()
    groups = messages[waits_s.isna()].groupby(["variant", processes], observed=True)
    medians = groups[["send_lag_ms", "service_time_ms"]].median().reset_index()
    waited = waits_s.groupby(messages["variant"], observed=True).agg(["count", "size", "max"]).reset_index()
    return _one(
        "",
        (
            f"{variant}: messages{f' of worker {process}' if is_many else ''} were sent {lag:.1f} ms late "
            + (f"at a service time of {service:.1f} ms" if pd.notna(service) else "and none was answered")
            for variant, process, lag, service in medians.itertuples(index=False)
            if lag > max(_LAG_MS, _LAG_SHARE * service)
        ),
    ) + _one(
        "",
        (
            f"{variant}: {late} of {due} messages were due before their user was let in, and waited for that, "
            f"up to {longest_s:.1f} s; a longer warm-up leaves them out"
            for variant, late, due, longest_s in waited.itertuples(index=False)
            if late > _WAITED_SHARE * due
        ),
        is_fatal=False,
    )


def _clock(run: Run) -> list[Doubt]:
    return _one(
        "",
        (
            f"{trial.name}: the wall clock was stepped by {trial.clock_step_ms:.0f} ms"
            for trial in run.manifest.trials
            if abs(trial.clock_step_ms) > _CLOCK_STEP_MS
        ),
    )


def _stalls(run: Run) -> list[Doubt]:
    """What took the cores away; the messages that met it are left out, so the rest can be believed."""
    trials = run.manifest.trials
    felt = [one for one in trials if one.state == "rejected" or one.machine.disturbed_share > _DISTURBED_SHARE]
    if not felt:
        return []
    sent = run.after_warmup("disturbed")["disturbed"].fillna(0)
    taken = sum(one.machine.stalled_share for one in felt) / len(felt)
    withheld = sum(one.machine.steal_share for one in felt) / len(felt)
    longest_ms = max(one.machine.longest_stall_ms for one in felt)
    where, at_most = f"in {len(felt)} of {len(trials)} trials", f"up to {longest_ms:.0f} ms at a time"
    if longest_ms < _STALL_MS:
        what, remedy = f"the emulator of the link was late {where}", "Run it where fewer programs run"
    elif withheld > taken / 2:
        what = f"the host withheld {_percent(withheld)} of the CPU {where}, {at_most}"
        remedy = "Run it where fewer virtual machines share a core"
    else:
        what = f"something of higher priority took {_percent(taken)} of the CPU {where}, {at_most}"
        remedy = "Run it where fewer programs run"
    left_out = f"{_percent(sent.mean() if len(sent) else 0.0)} of the messages are left out"
    sentence = (
        f"{what}; {left_out}, and repeating a trial did not help. {remedy}"
        if in_vain(trials)
        else f"{what}; {left_out}. {remedy}, or repeat more: --repeat 5"
    )
    details = (
        f"{one.name}, trial {one.number}: {_percent(one.machine.disturbed_share)} of the messages disturbed"
        + (f"; rejected: {one.reason}" if one.reason else "")
        for one in felt
    )
    return [Doubt(sentence, tuple(details), is_fatal=False)]


def _percent(share: float) -> str:
    return "less than 1 %" if 0 < share <= 0.005 else f"{100 * share:.0f} %"


def _others(run: Run) -> list[Doubt]:
    """Foreign processes, by name; without a name, that the machine had no core left for us."""
    percents: dict[str, float] = {}
    for trial in run.manifest.trials:
        for name, percent in trial.machine.others_percent.items():
            percents[name] = max(percents.get(name, 0.0), percent)
    named = sorted(((percent, name) for name, percent in percents.items() if percent >= _OTHER_PERCENT), reverse=True)
    if named:
        told = [f"{name} used {percent:.0f} % of a core" for percent, name in named]
        return _one("", told, is_fatal=False)
    whole_percent = 100.0 * run.manifest.cores
    busy = _steady(run, "machine").groupby("variant", observed=True)["cpu_percent"].mean()
    return _one(
        "",
        (
            f"{variant}: {100 * percent / whole_percent:.0f} % of the machine was busy; stop others, or load it less"
            for variant, percent in busy[busy > _MACHINE_BUSY_SHARE * whole_percent].items()
        ),
        is_fatal=False,
    )


def _emulator(run: Run) -> list[Doubt]:
    """When it was late, its messages are marked; this is how much."""
    return _one(
        "",
        (
            f"{trial.name}: the emulator of {counters.path} was late: "
            f"p99 {(counters.lateness_p99_us or 0) / 1e3:.1f} ms"
            for trial in run.manifest.trials
            for counters in trial.link_counters
            if (counters.lateness_p99_us or 0) > _EMULATOR_LATE_MS * 1e3
        ),
        is_fatal=False,
    )


def _steady(run: Run, kind: str) -> pd.DataFrame:
    """CPU samples of `machine`, or of all processes `load`, `load-0`, …, after the ramp.

    The ramp's one busy second is not what the trial was like.
    """
    machine = run.table("machine")
    is_kind = machine["process"].str.split("-").str[0] == kind
    return machine[is_kind & (machine["time_s"] >= 1.0)]


def _worker(process: str) -> str:
    """Of which worker, if there are several: ` of worker 2` for `load-2`."""
    number = process.partition("-")[2]
    return f" of worker {number}" if number else ""
