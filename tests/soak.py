"""Server and 500 users with two connections each, behind bad Wi-Fi, for long: does anything grow or get lost?

    python tests/soak.py [--minutes 30] [--users 500] [--results results/soak]

As root. From the run's tables it prints memory and descriptors of the server five minutes after all users are there and
at the end, and what was lost; and it draws them over time, with the response times. Exit code 1: memory differs by more
than 5 %, descriptors differ, or a message was lost.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

from loadtests.analysis.read import Run, open_run

SPEAKERS, RATE, JOINS_PER_S = 10, "0.2/s", 3
#: What memory has settled by.
SETTLED_S = 300
MOST_MORE = 1.05
SCENARIO = f"""
link: wifi-bad
connections: redundant
users: {{{{BroadcastUser: {SPEAKERS}, ListeningUser: {{listeners}}}}}}
messages: {{{{rate: {RATE}, delivery_sample: 1%}}}}
stages: [{{{{users: {{users}}, spawn_rate: {JOINS_PER_S}/s, duration: {{seconds}}s}}}}]
warmup: {{warmup}}s
"""


def at(server: pd.DataFrame, time_s: float) -> "pd.Series[float]":
    """Medians of the ten seconds before this time."""
    return server[server["time_s"].between(time_s - 10, time_s)][["rss_bytes", "descriptors"]].median()


def draw(run: Run, server: pd.DataFrame, file: Path) -> None:
    """Memory, descriptors and response times over time."""
    import matplotlib.pyplot as plt

    messages = run.table("messages", ["intended_s", "response_time_ms"])
    minutes = messages.groupby(messages["intended_s"] // 60)["response_time_ms"]
    figure, (memory, descriptors, times) = plt.subplots(3, sharex=True, figsize=(8, 7), layout="constrained")
    memory.plot(server["time_s"] / 60, server["rss_bytes"] / 1e6)
    memory.set(ylabel="server's memory in MB", ylim=(0, server["rss_bytes"].max() / 1e6 * 1.1))
    descriptors.plot(server["time_s"] / 60, server["descriptors"])
    descriptors.set(ylabel="its open descriptors", ylim=(0, None))
    for share in (0.5, 0.95):
        times.plot(minutes.quantile(share).index + 0.5, minutes.quantile(share), label=f"p{share * 100:.0f}")
    times.set(xlabel="minutes", ylabel="response time in ms", ylim=(0, None))
    times.legend()
    figure.savefig(file, dpi=110)
    print(f"figure: {file}")


def main() -> int:
    """Run it, and judge it."""
    parser = argparse.ArgumentParser(description="Does anything grow, does anything get lost?")
    parser.add_argument("--minutes", type=float, default=30.0, help="of load, once all users are there")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--results", type=Path, default=Path("results/soak"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    there_s = round(options.users / JOINS_PER_S) + 5
    seconds = there_s + round(options.minutes * 60)
    options.results.mkdir(parents=True, exist_ok=True)
    scenario = options.results / "soak.yaml"
    words = {"users": options.users, "listeners": options.users - SPEAKERS, "seconds": seconds, "warmup": there_s}
    scenario.write_text(SCENARIO.format(**words))
    command = [sys.executable, "-m", "loadtests", "run", str(scenario), "--results", str(options.results)]
    code = subprocess.run([*command, "--repeat", "0", "--no-report"], check=False).returncode
    if code not in (0, 3):
        sys.exit(f"soak: the run ended with exit code {code}")
    run = open_run(max(path.parent for path in options.results.glob("*/run.json")))
    machine = run.table("machine")
    server = machine[machine["process"] == "server"]
    early, late = at(server, min(there_s + SETTLED_S, seconds / 2)), at(server, seconds - 1)
    outcomes = run.table("messages", ["outcome"])["outcome"].value_counts()
    lost = int(outcomes.sum() - outcomes.get("echoed", 0))
    draw(run, server, options.results / "soak.png")
    print(f"memory {early['rss_bytes'] / 1e6:.1f} → {late['rss_bytes'] / 1e6:.1f} MB")
    print(f"descriptors {early['descriptors']:.0f} → {late['descriptors']:.0f}")
    print(f"{outcomes.sum()} messages, {lost} without an echo")
    good = (
        late["rss_bytes"] <= MOST_MORE * early["rss_bytes"] and late["descriptors"] == early["descriptors"] and not lost
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
