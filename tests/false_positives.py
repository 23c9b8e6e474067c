"""How often does `chatlab compare` see a difference where there is none? `python tests/false_positives.py RUN`.

RUN repeats the same trials again and again (`chatlab run a-a`). For each variant its trials, in the order they were
run, are dealt in turn to A and to B: the same variant twice, interleaved. Then they are dealt at random twenty times.
Exits 1 if the first deal shows a difference in the median response time, or more of the random ones than chance
would, with a level of 5 %, once in a thousand times.
"""

import sys

import numpy as np
from scipy import stats

from loadtests.analysis.compare import SHARES, per_trial
from loadtests.analysis.read import open_run
from loadtests.analysis.shift import LEVEL, unpaired

DEALS = 20
#: Of twenty deals, so many may look different; more would happen once in a thousand times.
MOST = int(stats.binom.ppf(0.999, DEALS, LEVEL))


def main() -> int:
    run = open_run(sys.argv[1])
    rng = np.random.default_rng(1)
    good = True
    for variant, trials in per_trial(run).sort_values("trial").groupby("variant"):
        for metric in SHARES:
            figures = trials[metric].to_numpy(float)
            if np.isnan(figures).any():
                print(f"{variant} {metric}: too few messages in a trial")
                continue
            in_turn = unpaired(figures[::2], figures[1::2])
            half = len(figures) // 2
            deals = [rng.permutation(figures) for _ in range(DEALS)]
            found = sum(unpaired(dealt[:half], dealt[half:]).p_value < LEVEL for dealt in deals)
            print(
                f"{variant} {metric}: {half} trials of either side in turn: p = {in_turn.p_value:.2f}; "
                f"different in {found} of {DEALS} random deals"
            )
            good &= found <= MOST and (metric != "p50_ms" or in_turn.p_value >= LEVEL)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
