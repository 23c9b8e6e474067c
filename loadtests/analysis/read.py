"""A run directory → tidy frames: one row per observation, one column per variable, the variant beside each row."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from loadtests.data import results
from loadtests.run.manifest import Manifest
from loadtests.samples import TABLES


@dataclass(frozen=True)
class Run:
    """A finished, or partly finished, run."""

    path: Path

    @cached_property
    def manifest(self) -> Manifest:
        """What `run.json` says: scenario, versions, trials."""
        return Manifest.read(self.path)

    @property
    def conditions(self) -> list[str]:
        """The keys that the scenario varied, in its order; `variant` when it varied none."""
        return list(self.manifest.scenario.get("vary", {})) or ["variant"]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial: `trial`, `repetition`, `variant`, and one column for each varied key.

        The varied columns are ordered categories, so that tables and figures keep the scenario's order.
        """
        rows = [
            {"trial": trial.number, "repetition": trial.repetition, "variant": trial.name, **trial.variant}
            for trial in self.manifest.trials
        ]
        frame = pd.DataFrame(rows)
        for key, labels in self.manifest.labels.items():
            frame[key] = pd.Categorical(frame[key], categories=labels, ordered=True)
        return frame

    def table(self, name: str) -> pd.DataFrame:
        """The table `name` (`messages`, `deliveries`, `tcp`, `link`, …) with the variant of each row's trial.

        Empty if the run had nothing to write there: no link of its own, say.
        """
        file = self.path / f"{name}.csv"
        rows = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=list(TABLES[name]))
        if rows.empty:  # pandas cannot know then that the columns hold numbers
            rows = rows.astype(float)
        return rows.merge(self.trials, on="trial")

    @property
    def link_changes(self) -> pd.DataFrame:
        """The rows of `link.csv` that tell when a link's timeline changed it."""
        rows = self.table("link")
        return rows[rows["when"] == "change"]

    @cached_property
    def messages(self) -> pd.DataFrame:
        """`messages.csv` without the warm-up."""
        messages = self.table("messages")
        return messages[messages["warmup"] == 0]


def open_run(path: str | Path | None = None) -> Run:
    """The run at `path`; without one, that of the environment variable CHATLAB_RUN, or the newest in `results/`
    (see :func:`loadtests.data.results`).

    Raises FileNotFoundError: there is no run there.
    """
    chosen = path or os.environ.get("CHATLAB_RUN")
    if chosen is None:
        folder = results()
        runs = sorted(folder.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
        if not runs:
            raise FileNotFoundError(f"{folder}: no run yet; `chatlab run demo` makes one")
        chosen = runs[-1].parent
    if not (Path(chosen) / "run.json").exists():
        raise FileNotFoundError(f"{chosen}: not a run directory: it has no run.json")
    return Run(Path(chosen))
