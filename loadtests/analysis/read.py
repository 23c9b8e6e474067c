"""A run directory → tidy frames: one row per observation, one column per variable, the variant beside each row.

Messages and deliveries may be tens of millions of rows. They are read by DuckDB, on all cores, only the columns that
somebody asks for, and texts that repeat (`path`, `outcome`) as categories of one byte; the other tables are small.
"""

import csv
import itertools
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from glob import glob
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from chat.words import brief, reason_of, visible
from loadtests.data import results
from loadtests.errors import HarnessError
from loadtests.run.manifest import Manifest
from loadtests.samples import FIRST_UNTAKEN_ID, KINDS, OUTCOMES, PATHS, SCHEMA_VERSION, STAMPS, TABLES, TEXTS

#: The oldest tables that this version still reads.
OLDEST_SCHEMA = 3
#: Columns that older tables lack → what they say instead, in SQL.
_INSTEAD = {"stamp": "CASE exact WHEN 1 THEN 'kernel' ELSE 'read' END", "disturbed": "0"}
#: Columns that a small table of this schema may lack; one of an older schema lacks others too.
_ADDED = {"descriptors", "let_in_s"}
#: Texts of the large tables → what they may say.
_CATEGORIES = {
    "kind": KINDS,
    "path": PATHS,
    "stamp": STAMPS,
    "outcome": ("echoed", "refused", "lost", *OUTCOMES),
}
_LARGE = ("messages", "deliveries")
#: What tells a row of the large tables from all others: never empty.
_KEYS = {"trial", "user", "receiver", "sender", "id"}


@dataclass(frozen=True)
class Run:
    """A finished, or partly finished, run."""

    path: Path
    #: Whether figures are of all messages, also of those that the machine disturbed.
    with_disturbed: bool = False

    @cached_property
    def manifest(self) -> Manifest:
        """What `run.json` says: scenario, versions, trials.

        Raises HarnessError: another version of chatlab wrote it, too old or too new.
        """
        return Manifest.read(self.path, OLDEST_SCHEMA)

    @property
    def conditions(self) -> list[str]:
        """The keys that the scenario varied, in its order; `variant` when it varied none."""
        return self.manifest.varied or ["variant"]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial: `trial`, `repetition`, `variant`, and one column for each varied key.

        The varied columns and `variant` are ordered categories, so that tables and figures keep the scenario's order.
        """
        rows = [
            {"trial": trial.number, "repetition": trial.repetition, "variant": trial.name, **trial.variant}
            for trial in self.manifest.trials
        ]
        frame = pd.DataFrame(rows, columns=None if rows else ["trial", "repetition", "variant", *self.manifest.labels])
        if frame.empty:  # nobody can know then that these are numbers
            frame = frame.astype({"trial": int, "repetition": int})
        for key, labels in self.manifest.labels.items():
            frame[key] = pd.Categorical(frame[key], categories=labels, ordered=True)
        names = frame.sort_values(list(self.manifest.labels) or ["trial"], kind="stable")["variant"].unique()
        frame["variant"] = pd.Categorical(frame["variant"], categories=list(names), ordered=True)
        return frame

    def table(self, name: str, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """The table `name` (`messages`, `deliveries`, `tcp`, `link`, …) with the variant of each row's trial.

        Empty if the run had nothing to write there: no link of its own, say. `columns` as of :meth:`rows`.
        """
        return self._with_variant(self.rows(name, columns))

    def rows(self, name: str, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """The table `name` as it is.

        Args:
            name: which table.
            columns: only these, beside `trial`; all by default. Asking for few is what keeps large runs small.

        Raises HarnessError: there is no such table or column; the file cannot be read, is damaged, or not chatlab's.
        """
        _check("table", name, [*TABLES])
        for column in columns or ():
            _check(f"column of {name}", column, [*TABLES[name]])
        wanted = list(dict.fromkeys(["trial", *(columns or TABLES[name])]))
        file = self.path / f"{name}.csv"
        if not file.exists() or not file.stat().st_size:
            rows = pd.DataFrame(columns=wanted)
        else:
            try:
                header = _header(file)
                lacking = [column for column in wanted if column not in header and not self._may_lack(name, column)]
                if lacking:
                    raise ValueError(f"it has no column {lacking[0]}")
                rows = _read_large(file, header, wanted) if name in _LARGE else _read_small(file, wanted)
            except OSError as error:
                raise HarnessError(f"{file}: cannot be read: {reason_of(error)}") from None
            except (duckdb.Error, ValueError) as error:
                raise HarnessError(f"{file}: damaged, or not chatlab's: {_words(error)}") from None
        if rows.empty:  # nobody can know then what the columns hold
            rows = rows.astype({column: object if column in TEXTS else float for column in wanted})
        return rows

    def only(self, wanted: Mapping[str, str | Collection[str]]) -> "Run":
        """The same run without all trials but those with these values: `run.only({"link": ["lan", "4g"]})`.

        Raises HarnessError: that was not varied, or has no such value.
        """
        is_kept = pd.Series(True, index=self.trials.index)
        for key, values in wanted.items():
            _check("varied key", key, self.conditions)
            kept = [values] if isinstance(values, str) else [*values]
            for value in kept:
                _check(f"value of {key}", value, [*self.trials[key].cat.categories])
            is_kept &= self.trials[key].isin(kept)
        part = copy(self)
        part.__dict__["trials"] = self.trials[is_kept]  # where cached_property keeps it; a run is frozen
        return part

    @property
    def link_changes(self) -> pd.DataFrame:
        """The rows of `link.csv` that tell when a link's timeline changed it."""
        rows = self.table("link")
        return rows[rows["when"] == "change"]

    def measured(self, *columns: str) -> pd.DataFrame:
        """These columns of `messages.csv`, without the warm-up, and without what was disturbed."""
        rows = self.undisturbed(self.after_warmup(*columns, "disturbed"))
        return rows if "disturbed" in columns else rows.drop(columns="disturbed")

    def after_warmup(self, *columns: str) -> pd.DataFrame:
        """These columns of all rows of `messages.csv` but those of the warm-up."""
        rows = self.rows("messages", [*columns, "warmup"])
        rows = rows[rows["warmup"] == 0]
        # The variant comes after it: a varied `warmup` is a column of the same name.
        return self._with_variant(rows if "warmup" in columns else rows.drop(columns="warmup"))

    def delivered(self, *columns: str) -> pd.DataFrame:
        """These columns of `deliveries.csv`, without the warm-up, and without what was disturbed."""
        rows = self.table("deliveries", [*columns, "sender", "id", "disturbed"])
        return self.undisturbed(rows[self.is_after_warmup(rows)])

    def is_after_warmup(self, deliveries: pd.DataFrame) -> "npt.NDArray[np.bool_]":
        """Whether each of these rows, which have `sender` and `id`, is of a message intended after the warm-up."""
        sent = self.rows("messages", ["user", "id", "warmup"])
        early = sent[(sent["warmup"] == 1) & (sent["id"] < FIRST_UNTAKEN_ID)]
        if early.empty:
            return np.ones(len(deliveries), bool)
        lasts = early["id"].groupby(_senders(early["trial"], early["user"])).max()  # ids rise for each user
        is_after = np.asarray(deliveries["id"].to_numpy() > lasts.max())  # of nearly all, which need no closer look
        rest = deliveries[~is_after]
        senders = _senders(rest["trial"], rest["sender"])
        is_after[~is_after] = rest["id"].to_numpy() > lasts.reindex(senders, fill_value=0).to_numpy()
        return is_after

    def undisturbed(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows that figures are made of: those that the machine did not disturb, or all, if all are wanted."""
        return rows if self.with_disturbed else rows[rows["disturbed"].fillna(0) == 0]

    def _may_lack(self, name: str, column: str) -> bool:
        """Whether a table without this column may be one of an older version."""
        if name in _LARGE:
            return column in _INSTEAD
        return column in _ADDED or self.manifest.schema_version < SCHEMA_VERSION

    def _with_variant(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of the trials that `run.json` knows, with what is known of each."""
        places = pd.Index(self.trials["trial"]).get_indexer(rows["trial"])
        if (places < 0).any():
            rows, places = rows[places >= 0], places[places >= 0]
        of_trial = self.trials.drop(columns="trial").iloc[places].set_index(rows.index)
        return rows.assign(**{str(key): of_trial[key] for key in of_trial})


class SeveralRuns(Run):
    """Runs side by side, as one whose conditions are the variant and the run it is of; trials are numbered anew."""

    runs: tuple[Run, ...]
    names: list[str]

    def __init__(self, runs: Sequence[Run]) -> None:
        """Names of runs are those of their folders; raises HarnessError: one run is there twice."""
        super().__init__(runs[0].path, runs[0].with_disturbed)
        object.__setattr__(self, "runs", tuple(runs))
        object.__setattr__(self, "names", _names([run.path.resolve() for run in runs]))

    @property
    def conditions(self) -> list[str]:
        return ["variant", "run"]

    @cached_property
    def trials(self) -> pd.DataFrame:
        variants = list(dict.fromkeys(name for run in self.runs for name in run.trials["variant"].cat.categories))
        parts = [
            run.trials[["trial", "repetition", "variant"]].assign(trial=run.trials["trial"] + first, run=name)
            for run, first, name in zip(self.runs, self._firsts, self.names, strict=True)
        ]
        frame = pd.concat(parts, ignore_index=True)
        for key, labels in (("variant", variants), ("run", self.names)):
            frame[key] = pd.Categorical(frame[key], categories=list(dict.fromkeys(labels)), ordered=True)
        return frame

    @cached_property
    def _firsts(self) -> list[int]:
        """What is added to the numbers of each run's trials."""
        highest = [int(run.trials["trial"].max()) if len(run.trials) else 0 for run in self.runs]
        return [0, *itertools.accumulate(highest)][: len(highest)]

    def rows(self, name: str, columns: Iterable[str] | None = None) -> pd.DataFrame:
        wanted = None if columns is None else list(columns)
        parts = [run.rows(name, wanted) for run in self.runs]
        parts = [part.assign(trial=part["trial"] + first) for part, first in zip(parts, self._firsts, strict=True)]
        return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _check(what: str, said: str, known: Sequence[str]) -> None:
    """Raises HarnessError: it is none of these."""
    if said not in known:
        raise HarnessError(f"{visible(said)} is no {what}; expected one of: {', '.join(map(visible, known))}")


def _senders(trials: "pd.Series[int]", users: "pd.Series[int]") -> "npt.NDArray[np.int64]":
    """A number for each user of each trial."""
    return trials.to_numpy(np.int64) << 32 | users.to_numpy(np.int64)


def _names(folders: list[Path]) -> list[str]:
    """What tells the folders apart: the last part of each path, or as many as it takes."""
    for folder in folders:
        if folders.count(folder) > 1:
            raise HarnessError(f"{folder}: the run is given twice")
    ends = ([os.path.join(*folder.parts[-parts:]) for folder in folders] for parts in itertools.count(1))
    return next(names for names in ends if len(set(names)) == len(names))


def open_run(path: str | Path | None = None, *, with_disturbed: bool | None = None) -> Run:
    """The run at `path`; without one, that of the environment variable CHATLAB_RUN, or the newest in `results/`
    (see :func:`loadtests.data.results`).

    Args:
        path: the run directory.
        with_disturbed: whether its figures count messages that the machine disturbed; by default if the environment
            variable CHATLAB_WITH_DISTURBED is set.

    Raises:
        FileNotFoundError: there is no run there.
        HarnessError: another version of chatlab made it.
    """
    chosen = path or os.environ.get("CHATLAB_RUN")
    if chosen is None:
        folder = results()
        runs = sorted(folder.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
        if not runs:
            raise FileNotFoundError(f"{folder}: no run yet; `chatlab run demo` makes one")
        chosen = runs[-1].parent
    if not os.path.isfile(Path(chosen) / "run.json"):
        if glob("*.start", root_dir=chosen):
            raise FileNotFoundError(
                f"{chosen}: raw records of plain Locust (--record), not a run: in Python, "
                "loadtests.run.collect.tables_of(folder, trial=1, warmup_s=0, paths={}) makes tables of them; "
                "`chatlab run` with `server: HOST:PORT` in the scenario makes a run"
            )
        raise FileNotFoundError(f"{chosen}: not a run directory: it has no run.json")
    if with_disturbed is None:
        with_disturbed = bool(os.environ.get("CHATLAB_WITH_DISTURBED"))
    run = Run(Path(chosen), with_disturbed)
    _ = run.manifest  # refused here rather than at the first table
    return run


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """One for all tables of a process: to open one takes longer than to read a short run."""
    database = duckdb.connect()
    for name, values in _CATEGORIES.items():
        listed = ", ".join(f"'{value}'" for value in values)
        database.execute(f"CREATE TYPE {name}_name AS ENUM ({listed})")
    return database


def _header(file: Path) -> list[str]:
    """The names of its columns, also where a spreadsheet has saved it: quoted, and after a byte order mark.

    Raises ValueError: its values are not separated by commas.
    """
    with file.open(encoding="utf-8-sig", newline="") as opened:
        line = opened.readline()
    if ";" in line and "," not in line:
        raise ValueError("its values are separated by ';'; expected ','")
    return next(csv.reader([line]), [])


def _read_large(file: Path, present: list[str], columns: list[str]) -> pd.DataFrame:
    """These columns of a large CSV file, in its order; `present`: all that it has.

    Raises ValueError, duckdb.Error: it has no such values.
    """
    # Told all the types, DuckDB need not guess them from the first rows, where a column may be empty.
    types = {name: _sql_type(name) for name in present if name.isidentifier()}
    told = ", ".join(f"'{name}': '{kind}'" for name, kind in types.items())
    chosen = ", ".join(name if name in present else f"{_INSTEAD[name]} AS {name}" for name in columns)
    with _database().cursor() as cursor:
        # Names of columns cannot be parameters; identifiers do no harm.
        query = f"SELECT {chosen} FROM read_csv(?, header = true, auto_detect = false, columns = {{{told}}})"  # noqa: S608
        rows = cursor.execute(query, [str(file)]).df()
    for name in _KEYS.intersection(columns):
        if (empty := rows[name].isna()).any():
            raise ValueError(f"line {int(empty.to_numpy().argmax()) + 2}: column {name} is empty")
    return rows


def _read_small(file: Path, columns: list[str]) -> pd.DataFrame:
    """These columns of a small CSV file; those that it lacks are empty.

    Raises ValueError: it is not CSV, or has words where numbers belong.
    """
    texts = dict.fromkeys(TEXTS & set(columns), "object")
    rows = pd.read_csv(file, dtype=texts)
    if not isinstance(rows.index, pd.RangeIndex):  # pandas takes what is too much for names of rows
        raise ValueError("its lines have more values than its first one has columns")
    rows = rows.reindex(columns=columns)
    for text in texts:  # such as names of processes, which are whatever they like
        told = rows[text].astype(object).fillna("")
        rows[text] = told.map({each: visible(each) for each in told.unique()})
    for name, column in rows.drop(columns=[*texts]).items():
        if pd.api.types.is_numeric_dtype(column) or column.dropna().isin((True, False)).all():
            continue
        words = column[pd.to_numeric(column, errors="coerce").isna() & column.notna()]
        if not words.empty:
            raise ValueError(f"line {words.index[0] + 2}, column {name}: not a number: {str(words.iloc[0])[:40]!r}")
        rows[name] = column.astype(float)  # integers beyond 64 bits
    return rows


def _words(error: Exception) -> str:
    """What a reader of CSV has to say, in one line."""
    line, conversion = (re.search(found, str(error)) for found in (r"Line: (\d+)", r"Could not convert [^\n]*"))
    if line and conversion:
        return f"line {line[1]}: {conversion[0][:1].lower()}{brief(conversion[0][1:])}"
    return brief((str(error) or type(error).__name__).splitlines()[0])


def _sql_type(column: str) -> str:
    if column in _CATEGORIES:
        return f"{column}_name"
    if column in ("warmup", "disturbed"):
        return "UTINYINT"
    return "DOUBLE" if column.endswith(("_s", "_ms", "_bps")) else "INTEGER"
