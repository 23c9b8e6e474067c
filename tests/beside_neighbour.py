"""The same scenario quiet and beside the noisy neighbour: does the neighbour change the answer?

    python tests/beside_neighbour.py [--links lan,4g,wifi-bad] [--trials 10] [--folder FOLDER]

As root. Two runs, trials in their usual order, the second beside bursts that take both cores 40 % of the time. For each
link it prints the medians, the p99 of all trials together with their 95 % intervals (bootstrap over trials), the share
that is left out, and the same without the exclusion. Exit code 1: with the exclusion the neighbour is still seen.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from loadtests.analysis.read import open_run

ROOT = Path(__file__).parent.parent
NEIGHBOUR = [sys.executable, str(ROOT / "tests" / "noisy_neighbour.py"), "--kind", "bursts", "--"]
SCENARIO = """
users: {{BroadcastUser: 10}}
messages: {{rate: 4/s}}
stages: [{{users: 10, duration: {seconds}s}}]
warmup: 2s
repetitions: {trials}
vary:
  link: [{links}]
"""
#: How far medians may be apart.
SHARE, LEAST_MS = 0.02, 0.2
_RESAMPLES = 2000


def run(scenario: Path, results: Path, beside: list[str]) -> Path:
    """A run of the scenario that never repeats a trial; returns its directory."""
    options = ["--results", str(results), "--repeat", "0", "--no-report"]
    command = [*beside, sys.executable, "-m", "loadtests", "run", str(scenario), *options]
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 3):
        sys.exit(f"the run ended with exit code {code}")
    return next(results.iterdir())


def p99_interval(rows: pd.DataFrame) -> tuple[float, float]:
    """Between which values the p99 of the pooled messages lies (95 %): bootstrap over trials."""
    trials = [times.to_numpy() for _, times in rows.groupby("trial")["response_time_ms"]]
    rng = np.random.default_rng(1)
    drawn = [
        np.nanquantile(np.concatenate([trials[number] for number in rng.integers(len(trials), size=len(trials))]), 0.99)
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def compared(quiet: Path, noisy: Path, *, with_disturbed: bool) -> pd.DataFrame:
    """One row for each link."""
    rows = []
    runs = [open_run(path, with_disturbed=with_disturbed) for path in (quiet, noisy)]
    messages = [one.measured("response_time_ms") for one in runs]
    for link in messages[0]["link"].cat.categories:
        a, b = (each[each["link"] == link] for each in messages)
        before_ms, after_ms = a["response_time_ms"].median(), b["response_time_ms"].median()
        (a_low, a_high), (b_low, b_high) = p99_interval(a), p99_interval(b)
        rows.append(
            {
                "link": link,
                "messages": f"{len(a)}/{len(b)}",
                "p50 quiet": before_ms,
                "p50 beside": after_ms,
                "p99 quiet": f"{a_low:.1f} to {a_high:.1f}",
                "p99 beside": f"{b_low:.1f} to {b_high:.1f}",
                "agree": bool(
                    abs(after_ms - before_ms) <= SHARE * before_ms + LEAST_MS and a_low <= b_high and b_low <= a_high
                ),
            }
        )
    return pd.DataFrame(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Does a noisy neighbour change the answer?")
    parser.add_argument("--links", default="lan,4g,wifi-bad")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=12, help="of load in each trial")
    parser.add_argument("--folder", type=Path, help="where the runs are kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scenario = folder / "neighbour.yaml"
        scenario.write_text(
            SCENARIO.format(links=options.links.replace(",", ", "), trials=options.trials, seconds=options.seconds)
        )
        quiet = run(scenario, folder / "quiet", [])
        noisy = run(scenario, folder / "beside", NEIGHBOUR)
        with_exclusion = compared(quiet, noisy, with_disturbed=False)
        print(with_exclusion.to_string(index=False, float_format="%.2f"))
        print("and with what was disturbed:")
        print(compared(quiet, noisy, with_disturbed=True).to_string(index=False, float_format="%.2f"))
    return 0 if with_exclusion["agree"].all() else 1


if __name__ == "__main__":
    sys.exit(main())
