"""`chatlab check SCENARIO`: what would run, for how long, and what it would leave on the disk."""

import argparse
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from chat.words import count
from loadtests.commands.scenario import add_scenario, document_of
from loadtests.commands.words import duration, size
from loadtests.data import RESULTS
from loadtests.errors import ExitCode
from loadtests.link.measure.calibrate import calibration_s
from loadtests.scenario.matrix import Trial, plan
from loadtests.scenario.scenario import TALKING, Scenario

#: What a trial takes besides its load and the measuring of its link: namespaces, server. With none, Locust alone.
_AROUND_TRIAL_S, _ALONE_S = 8.5, 4.0
#: If measuring the link takes longer than this in each trial, the reason is said.
_LONG_CALIBRATION_S = 120.0
#: Summary and report at the end.
_REPORT_S = 15.0
#: Rows of the tables, as found in runs of `demo`, and the report.
_MESSAGE_BYTES, _DELIVERY_BYTES, _USER_SECOND_BYTES, _REPORT_BYTES = 150, 60, 200, 800_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab check`."""
    add_scenario(parser)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where it would be written (%(default)s)")


def main(arguments: argparse.Namespace) -> int:
    """Print the plan; raises HarnessError: the scenario is wrong."""
    document = document_of(arguments)
    trials = plan(document)
    description = trials[0].scenario.description
    print(f"{document.title}{f': {description}' if description else ''}")
    variants: dict[str, Trial] = {}
    for trial in trials:
        variants.setdefault(trial.name, trial)
    loads = {name: list(_load(trial.scenario)) for name, trial in variants.items()}
    shared = [line for line in next(iter(loads.values())) if all(line in load for load in loads.values())]
    print("\n".join(shared))
    for name, trial in variants.items():
        paths = ", ".join(f"{path} {profile.name}" for path, profile in trial.links.items())
        print(f"variant {name}: {paths or 'no link'}")
        print("".join(f"  {line}\n" for line in loads[name] if line not in shared), end="")
    print("\n".join(dict.fromkeys(line for trial in variants.values() for line in _links(trial))))
    repetitions = trials[-1].repetition
    print(f"{count(len(trials), 'trial')}: {count(len(variants), 'variant')}, {count(repetitions, 'repetition')}")
    load_s = sum(trial.scenario.duration_s for trial in trials)
    around_s = sum(_AROUND_TRIAL_S + _measuring_s(trial) if trial.links else _ALONE_S for trial in trials)
    print(f"time: about {duration(load_s + around_s + _REPORT_S)}, of which {duration(load_s)} are load")
    results = arguments.results.absolute()
    place = next(folder for folder in (results, *results.parents) if os.path.isdir(folder))
    needed, free = _REPORT_BYTES + sum(map(_disk_bytes, trials)), shutil.disk_usage(place).free
    print(f"disk: about {size(needed)} in {arguments.results}, where {size(free)} are free")
    if needed > free:
        print(
            "The disk is too small for that: load less, lower messages.delivery_sample, or choose --results elsewhere."
        )
        return ExitCode.ERROR
    return ExitCode.PASSED


def _load(scenario: Scenario) -> Iterator[str]:
    """Users, rates, shape and thresholds: a line each."""
    most = max(stage.users for stage in scenario.shape)
    mix = [f"{number} {name}" for name, number in scenario.users.items()]
    if most == sum(scenario.users.values()):
        of_classes = ", ".join(mix)
    else:  # shares of it
        of_classes = " to ".join(mix) if len(mix) > 1 else next(iter(scenario.users))
    yield f"users: {most} ({of_classes}) in {count(scenario.rooms, 'room')}"
    yield f"connections: {scenario.connections}"
    messages = scenario.messages
    if messages.think_time is not None:
        yield f"messages: each user {messages.think_time:g} s after the answer (closed workload), {messages.size:g} B"
    else:
        sent = most * _talking(scenario) * messages.rate
        ramp = f", at the end {messages.ramp_to:g}/s" if messages.ramp_to else ""
        yield (
            f"messages: {messages.rate:g}/s and user{ramp} ({messages.arrival}), {messages.size:g} B; "
            f"{sent:.4g}/s in all, {_delivered_per_s(scenario, most):.4g}/s delivered"
        )
    stages = ", ".join(f"{count(stage.users, 'user')} for {stage.duration:g} s" for stage in scenario.shape)
    yield f"load: {stages}; the first {scenario.warmup:g} s are warm-up; server: {scenario.server}"
    if scenario.thresholds:
        yield f"thresholds: {'; '.join(threshold.text for threshold in scenario.thresholds)}"


def _links(trial: Trial) -> Iterator[str]:
    for profile in trial.links.values():
        yield f"link {profile}"
        late_s = [change.at_s for change in profile.timeline if change.at_s >= trial.scenario.duration_s]
        if late_s:
            yield f"  note: what the link does from {late_s[0]:g} s on comes after the end of the load"
    if (measuring_s := _measuring_s(trial)) > _LONG_CALIBRATION_S:
        yield f"  note: so slow a link takes {duration(measuring_s)} to measure in each trial"


def _measuring_s(trial: Trial) -> float:
    """How long the links are measured, before the load and after it; where we make both their ends, by probes."""
    return 2 * calibration_s(trial.links) if trial.links and trial.scenario.server.is_embedded else 0.0


def _talking(scenario: Scenario) -> float:
    """The share of users who say something."""
    talking = sum(number for name, number in scenario.users.items() if name in TALKING)
    return talking / sum(scenario.users.values())


def _delivered_per_s(scenario: Scenario, users: int) -> float:
    """Messages to everyone in a room reach all others there; those to one person reach one."""
    shares = {name: number / sum(scenario.users.values()) for name, number in scenario.users.items()}
    to_all = shares.get("BroadcastUser", 0) * max(0, users / scenario.rooms - 1)
    return users * scenario.messages.rate * (to_all + shares.get("PrivateUser", 0))


def _disk_bytes(trial: Trial) -> float:
    scenario = trial.scenario
    sent = delivered = seconds = 0.0
    for stage in scenario.shape:
        sent += stage.users * _talking(scenario) * scenario.messages.rate * stage.duration
        delivered += _delivered_per_s(scenario, stage.users) * scenario.messages.delivery_sample * stage.duration
        seconds += stage.users * len(scenario.paths) * stage.duration
    return sent * _MESSAGE_BYTES + delivered * _DELIVERY_BYTES + seconds * _USER_SECOND_BYTES
