"""Attempts at a trial: when another one is worth its time, and which of them counts. Pure.

A machine that was busy for a moment is quiet when the trial comes again; one that always is, is as busy then. So the
first repetition that is no better than what it repeated is the last one, and of each trial the best attempt counts.
"""

import itertools
from collections.abc import Iterable

from loadtests.run.manifest import TrialRecord

#: Of the messages after the warm-up; a trial with more that are disturbed is run again.
MOST_DISTURBED = 0.2
#: A repetition that has this share of the disturbance of what it repeated is no better: the rest may be luck.
_NO_BETTER = 0.8


def best(rejected: Iterable[TrialRecord]) -> TrialRecord | None:
    """The least disturbed attempt that has messages; None if all were given up before their load."""
    with_rows = [record for record in rejected if record.start]
    return min(with_rows, key=_disturbed_share, default=None)


def in_vain(records: Iterable[TrialRecord]) -> bool:
    """Whether one of these trials was repeated and the repetition was no better."""
    attempts: dict[tuple[int, str], list[TrialRecord]] = {}
    for record in records:
        attempts.setdefault((record.repetition, record.name), []).append(record)
    return any(_is_no_better(*two) for of_trial in attempts.values() for two in itertools.pairwise(of_trial))


def _is_no_better(before: TrialRecord, after: TrialRecord) -> bool:
    is_disturbed = after.state == "rejected" or _disturbed_share(after) > MOST_DISTURBED
    return is_disturbed and _disturbed_share(after) >= _NO_BETTER * _disturbed_share(before)


def _disturbed_share(record: TrialRecord) -> float:
    """All of it where the load was never begun."""
    is_without_load = record.state == "rejected" and not record.start
    return 1.0 if is_without_load else record.machine.disturbed_share
