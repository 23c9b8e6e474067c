"""How much of a response time was the network, and how much the machine? A real run against a virtual one.

In virtual time computing takes none, so what is left is the time of the network and the protocol. What the same trials
took longer in real time was the machine and its programs. The unit is the trial, as in :mod:`compare`.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chat.words import count
from loadtests.analysis.compare import LEAST_TRIALS, SHARES, per_trial
from loadtests.analysis.read import Run
from loadtests.analysis.shift import Shift, unpaired
from loadtests.errors import HarnessError
from loadtests.percentiles import least_count

#: Keys in which the scenarios of the two runs may differ: how often and when, not what was done.
_FREE = {"clock", "repetitions", "repeat", "seed", "thresholds", "description"}


@dataclass(frozen=True)
class Share:
    """One percentile of one variant."""

    variant: str
    #: `p50`, `p95`, ...
    percentile: str
    #: Trials of the real and of the virtual run.
    trials: tuple[int, int]
    #: Medians over trials, in ms.
    real_ms: float
    network_ms: float
    #: Real − virtual, in ms, with its 95 % interval (Hodges–Lehmann, exact Mann–Whitney); NaN if too few.
    machine_ms: Shift
    #: Why it is not known; empty if it is.
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether network and machine together are the real figure, within the interval of the machine's part."""
        return self.network_ms + self.machine_ms.low <= self.real_ms <= self.network_ms + self.machine_ms.high


def machine_shares(real: Run, virtual: Run) -> list[Share]:
    """Each percentile of each variant that both have.

    Raises HarnessError: the clocks are not a real and a virtual one, or the runs are of different scenarios.
    """
    clocks = (real.manifest.clock, virtual.manifest.clock)
    if clocks != ("real", "virtual"):
        raise HarnessError(
            f"compare --machine: give a run in real time, then one in virtual time; got {clocks[0]} and {clocks[1]}"
        )
    if others := _differences(real, virtual):
        raise HarnessError(f"compare --machine: the scenarios differ in {', '.join(others)}")
    of_real, of_virtual = per_trial(real), per_trial(virtual)
    common = [name for name in real.trials["variant"].cat.categories if name in set(of_virtual["variant"])]
    if not common:
        raise HarnessError(f"{real.path} and {virtual.path} have no variant in common")
    shares = []
    for name in common:
        sides = [table[table["variant"] == name] for table in (of_real, of_virtual)]
        least = int(min(side["waited"].min() for side in sides))
        for metric, share in SHARES.items():
            in_real, in_virtual = (side[metric].to_numpy(float) for side in sides)
            shares.append(_share(str(name), metric, in_real, in_virtual, (least, least_count(share))))
    return shares


def _differences(real: Run, virtual: Run) -> list[str]:
    one, other = real.manifest.scenario, virtual.manifest.scenario
    return sorted(key for key in (one.keys() | other.keys()) - _FREE if one.get(key) != other.get(key))


def _share(
    variant: str,
    metric: str,
    real: npt.NDArray[np.float64],
    virtual: npt.NDArray[np.float64],
    messages: tuple[int, int],
) -> Share:
    """`messages`: the fewest of any trial, and how many this percentile takes."""
    trials = (len(real), len(virtual))
    note = ""
    if np.isnan([*real, *virtual]).any():
        note = f"{messages[0]} messages in a trial; it takes {messages[1]}"
    elif min(trials) < LEAST_TRIALS:
        note = f"{count(min(trials), 'trial')}; it takes {LEAST_TRIALS}"
    unknown = Shift(math.nan, math.nan, math.nan, math.nan)
    return Share(
        variant,
        metric.removesuffix("_ms"),
        trials,
        float(np.median(real)),
        float(np.median(virtual)),
        unknown if note else unpaired(virtual, real),
        note,
    )
