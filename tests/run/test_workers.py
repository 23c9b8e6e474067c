"""One load on many processes: every sample arrives once, and whoever dies is said by name, with what is missing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chat_helpers import Clients, server_process
from run_helpers import assert_finished

from chat.client.events import Echoed, Received
from chat.net.transport import Address
from loadtests.load.batches import SILENCE_S, Collector, Courier
from loadtests.load.engine import room_of
from loadtests.load.recorder import Recorder, SentCount, clock
from loadtests.run.collect import processes, read_records, tables_of
from loadtests.samples import DELIVERED, ECHOED, SENT, USERS_PER_WORKER

ROOT = Path(__file__).parents[2]
CHATLAB = [sys.executable, "-m", "loadtests", "run"]
LOCUST = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless"]
MS = 1_000_000


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
        deadline_s = time.monotonic() + 60
        while len(list(tmp_path.glob("results/*/trial-001/worker-*.echoed"))) < 2:
            assert time.monotonic() < deadline_s, "no records came"
            time.sleep(0.1)
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
def test_plain_locust_on_several_processes_ends_as_locust_does(tmp_path: Path, room: tuple[Address, Listener]) -> None:
    server, listener = room
    port = free_port()
    options = ["--host", f"{server[0]}:{server[1]}", "-u", "4", "-r", "10", "-t", "3s", "--processes", "2"]
    options += ["--master-port", port, "--master-bind-port", port, "--csv", str(tmp_path / "locust")]
    done = subprocess.run([*LOCUST, *options], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    heard = listener.heard()
    assert len(heard) == len(set(heard)) > 0
    assert {user for user, _ in heard} <= {0, 1, USERS_PER_WORKER, USERS_PER_WORKER + 1}
    stats = pd.read_csv(tmp_path / "locust_stats.csv").set_index("Name")
    assert stats.loc["say", "Request Count"] == len(heard)


def test_users_take_the_rooms_in_turn_whichever_worker_they_are_in() -> None:
    numbers = [worker * USERS_PER_WORKER + place for worker in range(4) for place in range(5)]
    rooms = Counter(room_of(number, rooms=10, workers=4) for number in numbers)
    assert sorted(rooms.values()) == [2] * 10
    assert {room_of(number, rooms=1, workers=4) for number in numbers} == {"lobby"}


class FakeTime:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Pair:
    """A worker and its master, with the batches that are on their way between them."""

    def __init__(self, folder: Path) -> None:
        self.time = FakeTime()
        self.recorder = Recorder(folder / "own", worker=0)
        self.recorder.start()
        self.on_the_way: list[dict[str, Any]] = []
        self.courier = Courier(self.recorder, self.on_the_way.append)
        self.folder = folder / "master"
        self.collector = Collector(self.folder, clock(), self.time)
        self.collector.expect({"host_1": 0})

    def send(self, *ids: int, final: bool = False) -> None:
        for number in ids:
            self.recorder.add_sent(7, number, 0, 120, number * MS, number * MS)
        self.courier.ship(final=final)

    def arrive(self, *batches: dict[str, Any]) -> None:
        for batch in batches or self.on_the_way:
            self.collector.take("host_1", batch)

    @property
    def ids(self) -> list[int]:
        return [int(number) for number in read_records(self.folder, SENT)["id"]]


def test_batches_become_the_records_that_they_were(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.send(1, 2)
    pair.send()
    pair.send(3)
    pair.collector.is_ending = True
    pair.send(final=True)
    pair.arrive()
    assert pair.ids == [1, 2, 3]
    assert [process.pid for process in processes(pair.folder)] == [os.getpid()]
    assert (pair.collector.awaited, pair.collector.gone, pair.collector.losses()) == ([], [], [])


def test_a_batch_that_came_twice_counts_once(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.send(1, 2)
    pair.send(3)
    first, second = pair.on_the_way
    pair.arrive(first, first, second, first, second)
    assert pair.ids == [1, 2, 3]


def test_a_batch_that_never_came_is_counted(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    for ids in ([1], [2, 3], [4]):
        pair.send(*ids)
    pair.collector.is_ending = True
    pair.recorder.add(ECHOED, 7, 4, 0, 0, True, 0, 0, 0)
    pair.send(5, final=True)
    first, _, third, last = pair.on_the_way
    pair.arrive(first, third, last | {"offsets": last["offsets"] | {ECHOED.name: 2 * ECHOED.packer.size}})
    assert pair.ids == [1, 4, 5]
    (loss,) = pair.collector.losses()
    assert loss.endswith("finished: 2 of its messages and 2 of its other records are missing")


def test_a_worker_that_says_nothing_is_dead(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.send(1)
    pair.arrive()
    pair.recorder.add_sent(7, 2, 0, 120, 0, 0)  # killed before it could send this
    pair.time.now_s += SILENCE_S - 1
    assert pair.collector.awaited == ["host_1"]
    assert pair.collector.gone == []
    pair.time.now_s += 2
    assert pair.collector.awaited == []
    assert pair.collector.gone == ["host_1"]
    (loss,) = pair.collector.losses()
    host = socket.gethostname()
    assert loss == f"worker 0 (process {os.getpid()} on {host}) died: 1 of its messages are missing"


def test_of_a_dead_worker_of_another_machine_is_missing_what_others_have_heard(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.recorder.start_facts |= {"clock": "of another machine", "host": "elsewhere"}
    pair.send(1)
    pair.arrive()
    listener = Recorder(pair.folder, worker=1)
    for number in (1, 2, 3, 3):
        listener.add(DELIVERED, USERS_PER_WORKER, 7, number, 0, 0, True, 0, 0, 0)
    listener.flush()
    pair.time.now_s += SILENCE_S + 1
    (loss,) = pair.collector.losses()
    assert loss.endswith("on elsewhere) died: at least 2 of its messages are missing")


def test_a_worker_that_was_never_heard_of_is_named_by_its_number(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.time.now_s += SILENCE_S + 1
    assert pair.collector.losses() == ["worker 0 died: at least 0 of its messages are missing"]


def test_a_worker_that_leaves_by_itself_is_missed(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.send(1, final=True)
    pair.arrive()
    assert pair.collector.gone == ["host_1"]
    (loss,) = pair.collector.losses()
    assert loss.endswith("left before the end: 0 of its messages are missing")


def test_the_count_outlives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom loadtests.load.recorder import SentCount\n"
        "count = SentCount(Path(sys.argv[1]))\nfor _ in range(12_345): count.increase()\nos.kill(os.getpid(), 9)"
    )
    file = tmp_path / "count"
    assert subprocess.run([sys.executable, "-c", code, str(file)], cwd=ROOT).returncode == -signal.SIGKILL
    assert SentCount.read(file) == 12_345


def test_clocks_of_different_machines_are_not_compared(tmp_path: Path) -> None:
    """Users 0 and 1 are here, user 100000 is on a machine whose clock is far away."""
    here = Recorder(tmp_path, worker=0)
    here.start()
    t0 = here.start_facts["monotonic_ns"]
    here.add_sent(0, 1, 0, 120, t0 + 100 * MS, t0 + 101 * MS)
    here.add_sent(0, 2, 0, 120, t0 + 200 * MS, t0 + 201 * MS)
    for number in (1, 2):
        here.add(ECHOED, 0, number, t0 + number * 100 * MS, 0, True, t0 + (number * 100 + 50) * MS, t0, 0)
        here.add(DELIVERED, 1, 0, number, 0, 0, True, t0 + (number * 100 + 26) * MS, t0, 0)
    here.flush()
    far_ns = 77_000_000_000_000_000
    start = here.start_facts | {"worker": 1, "host": "elsewhere", "clock": "another", "monotonic_ns": far_ns}
    (tmp_path / "worker-1.start").write_text(json.dumps(start))
    sent = SENT.packer.pack(USERS_PER_WORKER, 1, 0, 120, far_ns + 300 * MS, far_ns + 301 * MS)
    (tmp_path / "worker-1.sent").write_bytes(sent)
    echoed = ECHOED.packer.pack(USERS_PER_WORKER, 1, far_ns + 300 * MS, 0, 1, far_ns + 340 * MS, far_ns + 341 * MS, 0)
    (tmp_path / "worker-1.echoed").write_bytes(echoed)
    # The second message of user 0, and that of user 100000, reached both machines.
    (tmp_path / "worker-1.delivered").write_bytes(
        DELIVERED.packer.pack(USERS_PER_WORKER, 0, 2, 0, 0, 1, far_ns + 230 * MS, far_ns, 0)
    )
    tables = tables_of(tmp_path, trial=1, warmup_s=0, paths={})
    messages = tables["messages"].set_index(["user", "id"])
    assert messages.loc[(USERS_PER_WORKER, 1), "response_time_ms"] == pytest.approx(40)
    assert messages.loc[(USERS_PER_WORKER, 1), "intended_s"] == pytest.approx(0.3)
    assert messages.loc[(0, 1), ["first_delivery_ms", "last_delivery_ms"]].tolist() == pytest.approx([25, 25])
    assert messages.loc[(0, 2), ["first_delivery_ms", "last_delivery_ms"]].isna().all(), "its last receiver is far away"
    deliveries = tables["deliveries"].set_index(["receiver", "id"])
    assert deliveries.loc[(1, 2), "one_way_delay_ms"] == pytest.approx(25)
    assert pd.isna(deliveries.loc[(USERS_PER_WORKER, 2), "one_way_delay_ms"])
    assert deliveries.loc[(USERS_PER_WORKER, 2), "received_s"] == pytest.approx(0.23)


@pytest.mark.realtime("runs")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["demo", "--processes", "0"], "expected a number from 1 up, got '0'"),
        (["demo", "--master", "--processes", "2"], "--master makes no load itself"),
        (["demo", "--expect-workers", "2"], "--expect-workers goes with --master"),
        (["demo", "--master-host", "far"], "--master-host goes with --worker"),
        (["demo", "--worker"], "leave out the scenario: the master sends it"),
        (["demo", "--master"], "workers elsewhere cannot be behind a link here"),
        (["--resume", "run", "--processes", "2"], "the run has its own"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    command = [*CHATLAB, *options, "--results", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
