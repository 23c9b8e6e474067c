"""The neighbour does what it says: its bursts, its command, its end."""

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from noisy_neighbour import LONGEST_S, SHARE, SHORTEST_S, bursts

SCRIPT = [sys.executable, str(Path(__file__).with_name("noisy_neighbour.py"))]


def test_bursts_take_their_share_and_are_the_same_for_the_same_seed() -> None:
    planned = list(itertools.islice(bursts(seed=1), 10_000))
    assert planned == list(itertools.islice(bursts(seed=1), 10_000))
    lengths = [length_s for _, length_s in planned]
    assert SHORTEST_S <= min(lengths) <= max(lengths) <= LONGEST_S
    assert all(begin + length <= later for (begin, length), (later, _) in itertools.pairwise(planned))
    assert sum(lengths) / sum(planned[-1]) == pytest.approx(SHARE, abs=0.02)


def test_it_ends_with_the_command_and_returns_its_exit_code() -> None:
    done = subprocess.run([*SCRIPT, "--kind", "process", "--", "sh", "-c", "exit 7"], timeout=60)
    assert done.returncode == 7


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    start = (
        "import subprocess, sys, time; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); time.sleep(100)"
    )
    command = [*SCRIPT, "--kind", "process", "--", "sh", "-c", f"echo $$ > {tmp_path}/command; exec sleep 100"]
    with subprocess.Popen([sys.executable, "-c", start, *command], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        neighbour = int(starter.stdout.readline())
        while not (tmp_path / "command").exists() or not (tmp_path / "command").read_text():
            time.sleep(0.01)
        family = {neighbour, int((tmp_path / "command").read_text())}
        family |= {int(pid) for pid in Path(f"/proc/{neighbour}/task/{neighbour}/children").read_text().split()}
        assert len(family) == 3
        starter.send_signal(signal.SIGKILL)
    while any(_runs(pid) for pid in family):
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
