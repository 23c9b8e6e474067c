"""One load on many processes: every sample arrives once, and whoever dies is said by name, with what is missing."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chat_helpers import Clients, server_process
from run_helpers import LOCUST, assert_finished, refused

from chat.client.events import Echoed, Received
from chat.net.transport import Address
from loadtests.run import loading
from loadtests.samples import USERS_PER_WORKER

CHATLAB = [sys.executable, "-m", "loadtests", "run", "--no-report"]


class Listener:
    """Somebody in the room who hears what everybody says: the server's side of the count."""

    def __init__(self, server: Address) -> None:
        self._clients = Clients()
        self._client = self._clients.join("listener", server)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def heard(self) -> list[tuple[int, int]]:
        """Number of the sender and id of each message said until now, in order; ends the listening."""
        self._is_over.set()
        self._thread.join()
        self._client.say("the end")  # whose echo comes after all that was said before
        self._clients.until(lambda: self._clients.of(self._client, Echoed))
        received = self._clients.of(self._client, Received)
        return [(int(event.sender.partition("-")[2]), event.id) for event in received]

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._clients.__exit__()

    def _listen(self) -> None:
        while not self._is_over.is_set():
            self._clients.loop.run_once(0.05)


@pytest.fixture
def room() -> Iterator[tuple[Address, Listener]]:
    """The address of a server, and who listens there."""
    with server_process() as server:
        listener = Listener(server.address)
        try:
            yield server.address, listener
        finally:
            listener.close()


def scenario(folder: Path, server: Address, duration: str) -> Path:
    file = folder / "s.yaml"
    file.write_text(f"""
server: {server[0]}:{server[1]}
users: {{BroadcastUser: 6, ListeningUser: 2}}
messages: {{rate: 10/s}}
stages: [{{users: 8, duration: {duration}}}]
warmup: 0s
""")
    return file


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def wait_for_records(folder: Path) -> None:
    """Return when both workers have sent some."""
    deadline_s = time.monotonic() + 60
    while len(list(folder.glob("results/*/trial-001/worker-*.echoed"))) < 2:
        assert time.monotonic() < deadline_s, "no records came"
        time.sleep(0.1)


def rows_of(results: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """`messages.csv` and `run.json` of the only run."""
    (directory,) = results.glob("*/run.json")
    return pd.read_csv(directory.parent / "messages.csv"), json.loads(directory.read_text())


@pytest.mark.realtime("runs")
def test_a_master_and_two_workers_lose_nothing_and_count_nothing_twice(
    tmp_path: Path, room: tuple[Address, Listener]
) -> None:
    server, listener = room
    port = free_port()
    worker_command = [*CHATLAB, "--worker", "--master-port", port, "--results", str(tmp_path / "kept")]
    workers = [subprocess.Popen(worker_command, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        command = [*CHATLAB, str(scenario(tmp_path, server, "5s")), "--results", str(tmp_path / "results")]
        command += ["--master", "--expect-workers", "2", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(timeout=30)
    assert_finished(done.returncode, done.stdout + done.stderr)
    messages, info = rows_of(tmp_path / "results")
    assert info["state"] == "finished"
    assert {process["worker"] for process in info["trials"][0]["processes"]} == {0, 1}
    assert len({process["pid"] for process in info["trials"][0]["processes"]}) == 2
    rows = list(zip(messages["user"], messages["id"], strict=True))
    assert sorted(rows) == sorted(listener.heard())
    assert len(set(rows)) == len(rows)
    assert set(messages["outcome"]) == {"echoed"}
    results = next((tmp_path / "results").iterdir())
    users = pd.read_csv(results / "clients.csv")["user"]
    assert users.groupby(users // USERS_PER_WORKER).nunique().tolist() == [4, 4]
    deliveries = pd.read_csv(results / "deliveries.csv")
    between = deliveries["sender"] // USERS_PER_WORKER != deliveries["receiver"] // USERS_PER_WORKER
    assert deliveries.loc[between, "one_way_delay_ms"].gt(0).all(), "one machine, one clock"
    assert between.any()
    assert {"load-0", "load-1", "master"} <= set(pd.read_csv(results / "machine.csv")["process"])


@pytest.mark.realtime("runs")
def test_a_killed_worker_ends_the_run_which_says_who_and_how_many(
    tmp_path: Path, room: tuple[Address, Listener]
) -> None:
    server, listener = room
    command = [*CHATLAB, str(scenario(tmp_path, server, "100s")), "--results", str(tmp_path / "results")]
    run = subprocess.Popen([*command, "--processes", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for_records(tmp_path)
        (start,) = tmp_path.glob("results/*/trial-001/worker-1.start")
        pid = json.loads(start.read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        printed, _ = run.communicate(timeout=100)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 3, printed
    messages, info = rows_of(tmp_path / "results")
    lost = f"worker 1 (process {pid} on {socket.gethostname()}) died: "
    assert lost in printed, printed
    assert info["state"].startswith(f"cut short: {lost}")
    assert info["trials"][0]["state"] == info["state"]
    missing = int(info["state"].removeprefix(f"cut short: {lost}").partition(" of its messages are missing")[0])
    rows = set(zip(messages["user"], messages["id"], strict=True))
    heard = set(listener.heard())
    assert len(rows) == len(messages)
    survivors = {(user, number) for user, number in heard if user < USERS_PER_WORKER}
    assert survivors == {(user, number) for user, number in rows if user < USERS_PER_WORKER}
    of_the_dead = {(user, number) for user, number in rows if user >= USERS_PER_WORKER}
    assert of_the_dead
    # What the dead worker had handed to its clients may not have left them any more.
    assert len(heard - survivors - of_the_dead) <= missing


@pytest.mark.realtime("runs")
def test_a_killed_run_leaves_no_load_behind(tmp_path: Path, room: tuple[Address, Listener]) -> None:
    command = [*CHATLAB, str(scenario(tmp_path, room[0], "100s")), "--results", str(tmp_path / "results")]
    run = subprocess.Popen([*command, "--processes", "2"], stdout=subprocess.DEVNULL)
    try:
        wait_for_records(tmp_path)
        starts = [json.loads(file.read_text()) for file in tmp_path.glob("results/*/trial-001/*.start")]
        processes = [os.pidfd_open(start["pid"]) for start in starts]
    finally:
        run.kill()
        run.wait()
    assert len(processes) == 3, "a master and two workers"
    for process in processes:
        with os.fdopen(process) as ended:
            assert select.select([ended], [], [], 60)[0], "still there"


@pytest.mark.realtime("runs")
def test_plain_locust_on_several_processes_ends_as_locust_does(tmp_path: Path, room: tuple[Address, Listener]) -> None:
    server, listener = room
    port = free_port()
    options = ["--headless", "--host", f"{server[0]}:{server[1]}", "-u", "4", "-r", "10", "-t", "3s"]
    options += [
        "--processes",
        "2",
        "--master-port",
        port,
        "--master-bind-port",
        port,
        "--csv",
        str(tmp_path / "locust"),
    ]
    done = subprocess.run([*LOCUST, *options], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    heard = listener.heard()
    assert len(heard) == len(set(heard)) > 0
    assert {user for user, _ in heard} <= {0, 1, USERS_PER_WORKER, USERS_PER_WORKER + 1}
    stats = pd.read_csv(tmp_path / "locust_stats.csv").set_index("Name")
    assert stats.loc["say", "Request Count"] == len(heard)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["demo", "--processes", "0"], "expected a number from 1 up, got '0'"),
        (["demo", "--master", "--processes", "2"], "--master makes no load itself"),
        (["demo", "--expect-workers", "2"], "--expect-workers goes with --master"),
        (["demo", "--master-host", "far"], "--master-host goes with --worker"),
        (["demo", "--master", "--master-bind-port", "x"], "--master-bind-port: expected a port, 0 to 65535, got 'x'"),
        (["--worker", "--master-port", "x"], "--master-port: expected a port, 0 to 65535, got 'x'"),
        (["demo", "--worker"], "leave out the scenario: the master sends it"),
        (["demo", "--master"], "workers elsewhere cannot be behind a link here"),
        (["demo", "--jobs", "2"], "it goes with --clock virtual"),
        (["--resume", "run", "--processes", "2"], "the run has its own"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert message in refused(capsys, "run", *options, "--results", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_worker_that_finds_no_master_says_where_it_looked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Locust gives up after five minutes, with nothing but an exit code."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # of this process, which is no worker
    monkeypatch.setattr(loading, "_LOCUST", [sys.executable, "-c", "raise SystemExit(255)"])
    said = refused(capsys, "run", "--worker", "--master-host", "far", "--results", tmp_path)
    assert "no master came at far:5557 for five minutes" in said
    assert "chatlab run SCENARIO --master" in said
