"""Our server beside others: `make bench`, or for one cell `python tests/bench_peers.py --members 100 --senders 4`.

The same work at each: members of one room, some of whom talk. The server has one core to itself, the load generator (a
C program, compiled here) another one. Beside them `limit`, a C program that does the least a chat server can do, and
`limit-python`, the same in plain Python. Servers take turns within each cell, and the medians of the repetitions count.

Loads: `saturated` (16 messages for each sender on their way), `paced` (half of what the slowest one did), `light` (100
messages a second to 100 members), `storm` (2,000 registrations, 64 at a time) and `many` (10,000 sessions and one
message to all of them). ngircd, inspircd and mosquitto are measured where they are installed.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from peers.servers import SERVERS, Server, running

SOURCES = Path(__file__).parent / "peers"
LOADS = ("saturated", "paced", "light", "storm", "many")
#: Messages of each sender that may be on their way. More would be too much for the queue ngIRCd has for a member.
WINDOW = 16
SERVER_CORE, GENERATOR_CORE = 0, 1
#: How long one measurement may take; 10,000 who come in one by one and see each other take IRC servers long.
LIMIT_S = 150.0


class Cell(NamedTuple):
    """What is asked of each server."""

    load: str
    members: int
    senders: int

    def options(self, server: Server, rate: float) -> dict[str, int]:
        """The generator's, with `rate` messages a second if it is to be paced."""
        talk = {"members": self.members, "ways": server.ways, "at_once": server.at_once, "senders": self.senders}
        match self.load:
            case "storm":
                return {"members": self.members, "ways": server.ways, "at_once": 64, "join": 0}
            case "many":
                return talk | {"rate": 1, "warmup_ms": 0, "measure_ms": 900}
            case "saturated":
                return talk | {"window": WINDOW * self.senders, "measure_ms": 1500}
        return talk | {"rate": max(1, round(rate)), "measure_ms": 3000 if self.load == "light" else 1500}


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Each cell that was asked for; saturated ones before the paced ones, which depend on them."""
    for load in options.load:
        if load == "light":
            yield Cell(load, 100, 4)
        elif load == "storm":
            yield Cell(load, 2_000, 0)
        elif load == "many":
            yield Cell(load, 10_000, 1)
        else:
            for members, senders in itertools.product(options.members, options.senders):
                yield Cell(load, members, senders)


def compile_programs(folder: Path) -> None:
    """Generator and limit, from tests/peers."""
    if shutil.which("cc") is None:
        sys.exit("bench: there is no C compiler (cc), which the load generator needs: apt-get install gcc libc6-dev")
    for program, files in {"generator": ("generator.c", "dialects.c"), "limit": ("limit.c",)}.items():
        command = ["cc", "-O2", "-o", str(folder / program), *(str(SOURCES / file) for file in files)]
        subprocess.run(command, check=True)


def measure(server: Server, cell: Cell, rate: float, folder: Path) -> dict[str, Any]:
    """One measurement in a server process of its own, as a row; with only a `failure` if it was none."""
    with running(server, folder, SERVER_CORE) as (port, pid):
        words = [f"{name}={value}" for name, value in cell.options(server, rate).items()]
        command = ["taskset", "-c", str(GENERATOR_CORE), str(folder / "generator"), server.dialect, str(port), str(pid)]
        try:
            done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            return {"failure": f"took longer than {LIMIT_S:g} s"}
    if done.returncode:
        return {"failure": done.stderr.strip() or f"the generator ended with {done.returncode}"}
    row: dict[str, Any] = json.loads(done.stdout)
    row["registrations_per_s"] = cell.members / row["registration_s"]
    if "deliveries" in row:
        row["messages_per_s"] = row["messages"] / row["measured_s"]
        row["us_per_delivery"] = row["server_cpu_s"] / max(row["deliveries"], 1) * 1e6
        for who in ("server", "generator"):
            row[f"{who}_busy"] = row[f"{who}_cpu_s"] / row["measured_s"]
            row[f"{who}_waited"] = row[f"{who}_waited_s"] / row["measured_s"]
    return row


def is_generator_bound(row: "pd.Series[Any]") -> bool:
    """Whether the generator used its core up and the server did not."""
    return bool(row["load"] == "saturated" and row["generator_busy"] > 0.9 > row["server_busy"])


def half_of_slowest(rows: list[dict[str, Any]], cell: Cell) -> float:
    """Messages per second: half of what the slowest server did when it was saturated."""
    speeds: dict[str, list[float]] = {}
    for row in rows:
        if (row["load"], row["members"], row["senders"]) == ("saturated", *cell[1:]) and "messages_per_s" in row:
            speeds.setdefault(row["server"], []).append(row["messages_per_s"])
    if not speeds:
        sys.exit(f"bench: {cell} is paced by what the servers do when saturated: add --load saturated")
    return min(map(statistics.median, speeds.values())) / 2


def run(options: argparse.Namespace, servers: dict[Server, str], folder: Path) -> pd.DataFrame:
    """Measure each cell at each server, in turn; a row each, on disk as soon as its cell is done."""
    file = options.results / "peers.csv"
    options.results.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = pd.read_csv(file).to_dict("records") if options.add and file.exists() else []
    for cell in cells(options):
        rate = 100.0 if cell.load == "light" else half_of_slowest(rows, cell) if cell.load == "paced" else 0.0
        done = len({row["repeat"] for row in rows if (row["load"], row["members"], row["senders"]) == cell})
        for repeat in range(done, done + (options.repeat if cell.load != "many" else 1)):
            for server in rotated(list(servers), repeat):
                row = measure(server, cell, rate, folder)
                rows.append(
                    {"server": server.name, "version": servers[server], **cell._asdict(), "repeat": repeat} | row
                )
        pd.DataFrame(rows).to_csv(file, index=False)
        print(f"measured: {cell.load}, {cell.members} members, {cell.senders} senders", file=sys.stderr)
    return pd.DataFrame(rows)


def rotated(servers: list[Server], by: int) -> list[Server]:
    """So that nobody is always measured first."""
    by %= len(servers)
    return servers[by:] + servers[:by]


def tables(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Medians for people: a title and a table each."""
    order = list(dict.fromkeys(rows["server"]))
    for load in dict.fromkeys(rows["load"]):
        some = rows[rows["load"] == load]
        where = ["members", "senders"]
        if load == "storm":
            columns = {"registrations_per_s": 0, "session_bytes": 0}
        elif load in ("saturated", "paced"):
            columns = {"us_per_delivery": 3}
        else:
            columns = {"us_per_delivery": 2, "p50_us": 0, "p99_us": 0, "rss_bytes": 0}
        for column, digits in columns.items():
            medians = some.pivot_table(index=where, columns="server", values=column, aggfunc="median")
            yield f"{load}: {column}", medians[[name for name in order if name in medians]].round(digits)


def warnings(rows: pd.DataFrame) -> Iterator[str]:
    """What a reader of the tables must know."""
    if "failure" in rows:
        for _, row in rows.dropna(subset=["failure"]).iterrows():
            yield f"{row.server}, {row['load']}, {row.members} x {row.senders}: {row.failure}"
    if "lost" in rows:
        wrong = rows[(rows["lost"] > 0) | (rows["wrong_members"] > 0)]
        for _, row in wrong.iterrows():
            yield f"{row.server}, {row['load']}, {row.members} x {row.senders}: {row.lost:g} deliveries lost"
        bound = rows[rows.apply(is_generator_bound, axis=1)]
        for key, some in bound.groupby(["server", "members", "senders"]):
            yield f"{key}: the generator was the bottleneck in {len(some)} measurement(s)"
        waited = rows[(rows["server_waited"] > 0.1) | (rows["generator_waited"] > 0.1)]
        if len(waited):
            yield f"in {len(waited)} of {len(rows)} measurements other work had a core for a tenth of the time"


def draw(rows: pd.DataFrame, file: Path) -> None:
    """CPU per delivery of each server, by members and senders."""
    some = rows[rows["load"].isin(["saturated", "paced"])]
    if some.empty:
        return
    import seaborn as sns

    grid = sns.relplot(
        some,
        x="members",
        y="us_per_delivery",
        hue="server",
        style="server",
        row="load",
        col="senders",
        kind="line",
        markers=True,
        dashes=False,
        estimator="median",
        errorbar=("pi", 100),
        height=2.8,
        facet_kws={"sharey": True},
    )
    grid.set(xscale="log", yscale="log", ylabel="CPU per delivery in µs")
    grid.savefig(file, dpi=110)
    print(f"figure: {file}")


def machine() -> str:
    """One line about where this ran."""
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{model.split(':')[1].strip()}, {os.cpu_count()} cores, {system}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Our server beside others.")
    parser.add_argument("--members", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--senders", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--load", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[server.name for server in SERVERS], help="servers")
    parser.add_argument("--add", action="store_true", help="to the rows of an earlier run in the same folder")
    parser.add_argument("--results", type=Path, default=Path("results/bench"), help="folder (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Measure, write peers.csv, print the tables. Exit code 1 if our own server failed at something."""
    options = parse()
    if (os.cpu_count() or 1) < 2:
        sys.exit("bench: server and generator need a core each; this machine has one")
    wanted = [server for server in SERVERS if not options.only or server.name in options.only]
    servers = {server: version for server in wanted if (version := server.version())}
    print(machine())
    for server in wanted:
        print(f"{server.name}: {servers.get(server, 'not installed, left out')}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compile_programs(folder)
        rows = run(options, servers, folder)
    draw(rows, options.results / "peers.png")
    for title, table in tables(rows[rows["failure"].isna()] if "failure" in rows else rows):
        print(f"\n{title}\n{table.to_string()}")
    for warning in warnings(rows):
        print(f"note: {warning}")
    ours = rows[rows["server"] == "ours"]
    return 1 if "failure" in ours and ours["failure"].notna().any() else 0


if __name__ == "__main__":
    sys.exit(main())
