"""What the load generator costs (`make bench`): deliveries per second of one core, memory per user, recording.

One Locust process, 1,000 users in one room, 26 messages a second: 26,000 deliveries a second, over loopback. The run
must be trustworthy; recording is measured in pairs of the same load with and without it. Exit code 1 if a limit is
missed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from bench_table import Figure, print_table
from chat_helpers import server_process

from chat.net.transport import Address
from loadtests.data import LOCUSTFILE

PAIRS, USERS, LOAD_S, RAMP_S = 3, 1_000, 25, 10
SCENARIO = """
connections: single
users: {{BroadcastUser: 26, ListeningUser: 974}}
messages: {{rate: 1/s, arrival: constant, size: 120B, delivery_sample: 1%}}
stages: [{{users: {users}, spawn_rate: 150/s, duration: {seconds}s}}]
warmup: {warmup}s
server: {server}
"""


def write_scenario(folder: Path, server: Address, users: int) -> Path:
    file = folder / f"{users}-users.yaml"
    address = "{}:{}".format(*server)
    file.write_text(SCENARIO.format(users=users, seconds=LOAD_S, warmup=RAMP_S, server=address))
    return file


def recorded(folder: Path, scenario: Path) -> tuple[int, Path]:
    """Exit code and directory of a run."""
    results = folder / scenario.stem
    done = subprocess.run([sys.executable, "-m", "loadtests", "run", str(scenario), "--results", str(results)])
    return done.returncode, next(results.iterdir())


def load_samples(run: Path) -> pd.DataFrame:
    """CPU and memory of the load process once all users are there."""
    machine = pd.read_csv(run / "machine.csv")
    steady = machine["time_s"].between(RAMP_S, LOAD_S - 1)
    return machine[(machine["process"] == "load") & steady]


def cpu_s(scenario: Path, server: Address, *options: str) -> float:
    """CPU time of one Locust process from start to end."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--scenario", str(scenario), "--host", "{}:{}".format(*server), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"Locust ended with exit status {status}"
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Print the table of figures and limits."""
    with server_process() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many, one = (write_scenario(folder, server.address, users) for users in (USERS, 1))
        exit_code, run = recorded(folder, many)
        load, alone = load_samples(run), load_samples(recorded(folder, one)[1])
        clients = pd.read_csv(run / "clients.csv")
        messages = pd.read_csv(run / "messages.csv")
        steady = messages["intended_s"].between(RAMP_S, LOAD_S - 1)
        print(f"{clients['deliveries'].sum() + len(messages)} deliveries of {len(messages)} messages")
        kb_per_user = (load["rss_bytes"].max() - alone["rss_bytes"].max()) / (USERS - 1) / 1e3
        base_s, ratios = cpu_s(one, server.address), []
        for pair in range(PAIRS):
            without_s = cpu_s(many, server.address) - base_s
            ratios.append((cpu_s(many, server.address, "--record", str(folder / f"{pair}")) - base_s) / without_s)
    figures = (
        Figure("exit code (3: not trustworthy)", [exit_code], 0),
        Figure("deliveries per second", [steady.sum() * USERS / (LOAD_S - 1 - RAMP_S)], 25_000, at_most=False),
        Figure("load generator, % of a core", [load["cpu_percent"].mean()], 70),
        Figure("memory per user, kB", [kb_per_user], 25),
        Figure("CPU with recording : without", ratios, 1.15),
    )
    return 0 if print_table(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
