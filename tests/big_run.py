"""A run directory of any size, made up, and how long and how much memory its summary takes.

    python tests/big_run.py [--messages 10_000_000] [--keep FOLDER]

Ten million messages and twenty million deliveries of 200 users in 12 trials are 2.5 GB of CSV. The rows have the
digits of real ones; response times are 40 ms and an exponential tail, one in a thousand is lost.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pandas as pd

from loadtests.run.manifest import Manifest, TrialRecord
from loadtests.samples import TABLES

_TRIALS, _USERS, _SECONDS = 12, 200, 60
#: Longest and largest that a summary of ten million messages may be, on two cores.
_LIMIT_S, _LIMIT_BYTES = 20, 3e9
_TAIL_MS = "round(40 - 10 * ln(1 - random()), 6)"
#: Column → SQL of its value in row i; `at_s` is when the row happened.
_VALUES = {
    "trial": "trial",
    "user": f"i % {_USERS}",
    "sender": f"i // 2 % {_USERS}",
    "receiver": f"cast(floor(random() * {_USERS}) AS INTEGER)",
    "id": f"i // {_USERS}",
    "kind": "'say'",
    "size_bytes": "120",
    "path": "CASE WHEN random() < 0.5 THEN 'primary' ELSE 'secondary' END",
    "stamp": "'wire'",
    "disturbed": "0",
    "warmup": "cast(at_s < 2 AS INTEGER)",
    "response_time_ms": f"CASE WHEN is_lost THEN NULL ELSE {_TAIL_MS} END",
    "echoed_s": "CASE WHEN is_lost THEN NULL ELSE round(at_s + 0.05, 9) END",
    "outcome": "CASE WHEN is_lost THEN 'lost' ELSE 'echoed' END",
}


def write_run(folder: Path, messages: int) -> None:
    """The run in `folder`: so many messages, and twice as many deliveries."""
    variants = [{"link": name} for name in ("lan", "wifi", "satellite")] * (_TRIALS // 3)
    trials = [
        TrialRecord(number=n, repetition=(n + 2) // 3, variant=variant, name=variant["link"], state="finished")
        for n, variant in enumerate(variants, 1)
    ]
    labels = {"link": ["lan", "wifi", "satellite"]}
    Manifest(scenario={"vary": labels}, labels=labels, trials=trials, cores=2, state="finished").write(folder)
    for table in ("tcp", "clients", "files", "machine", "link"):
        pd.DataFrame(columns=list(TABLES[table])).to_csv(folder / f"{table}.csv", index=False)
    with duckdb.connect() as database:
        database.execute("SET enable_progress_bar = false; SELECT setseed(0.5)")
        for table, rows in (("messages", messages), ("deliveries", 2 * messages)):
            _write_table(database, folder / f"{table}.csv", table, rows)


def _write_table(database: duckdb.DuckDBPyConnection, file: Path, table: str, rows: int) -> None:
    columns = ", ".join(f"{_value(name)} AS {name}" for name in TABLES[table])
    of_trial = -(-rows // _TRIALS)
    database.execute(
        f"""COPY (SELECT {columns} FROM (
            SELECT i, i // {of_trial} + 1 AS trial, i % {of_trial} * {_SECONDS / of_trial} AS at_s,
            random() < 0.001 AS is_lost FROM range({rows}) AS numbers(i))) TO '{file}' (HEADER)"""
    )


def _value(column: str) -> str:
    if column in _VALUES:
        return _VALUES[column]
    return "round(at_s + random() / 1000, 9)" if column.endswith("_s") else "round(20 - 5 * ln(1 - random()), 6)"


def main() -> int:
    """Make the run, summarise it in a process of its own, and say what that took; 1 if it was too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the run there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        write_run(folder, arguments.messages)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        program = (
            "import sys, time; began = time.perf_counter()\n"
            "from loadtests.analysis.read import open_run; from loadtests.analysis.stats import summarise\n"
            "print(summarise(open_run(sys.argv[1])).to_string()); print(time.perf_counter() - began)"
        )
        done = subprocess.run([sys.executable, "-c", program, folder], check=True, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    table, _, seconds = done.stdout.rstrip().rpartition("\n")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak_bytes = after.ru_maxrss * 1024
    print(table)
    print(
        f"{arguments.messages:,} messages, {2 * arguments.messages:,} deliveries summarised in {float(seconds):.1f} s"
    )
    print(
        f"({cpu_s:.1f} s of CPU), {peak_bytes / 1e9:.2f} GB at most; limits {_LIMIT_S} s, {_LIMIT_BYTES / 1e9:.0f} GB"
    )
    return int(float(seconds) > _LIMIT_S or peak_bytes > _LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
