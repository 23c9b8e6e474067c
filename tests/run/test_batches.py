"""How records come from many workers to one master: every one once, and what is missing is counted."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loadtests.load.batches import SILENCE_S, BatchSender, Collector
from loadtests.load.participant import room_of
from loadtests.load.recorder import Recorder, SentCount, clock
from loadtests.run.collect import processes, read_records, tables_of
from loadtests.samples import DELIVERED, ECHOED, SENT, USERS_PER_WORKER

ROOT = Path(__file__).parents[2]
MS = 1_000_000


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
        self.batch_sender = BatchSender(self.recorder, self.on_the_way.append)
        self.folder = folder / "master"
        self.collector = Collector(self.folder, clock(), self.time)
        self.collector.expect({"host_1": 0})

    def send(self, *ids: int, final: bool = False) -> None:
        for number in ids:
            self.recorder.add_sent(7, number, 0, 120, number * MS, number * MS)
        self.batch_sender.ship(final=final)

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


def test_a_master_in_another_folder_finds_what_a_dead_worker_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = Pair(Path())
    pair.send(1, 2, 3)
    pair.arrive()
    pair.send(4, 5)  # which never arrive
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path / "raw")
    pair.time.now_s += SILENCE_S + 1
    (loss,) = pair.collector.losses()
    assert loss.endswith(" died: 2 of its messages are missing")


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


def test_users_take_the_rooms_in_turn_whichever_worker_they_are_in() -> None:
    numbers = [worker * USERS_PER_WORKER + place for worker in range(4) for place in range(5)]
    rooms = Counter(room_of(number, rooms=10, workers=4) for number in numbers)
    assert sorted(rooms.values()) == [2] * 10
    assert {room_of(number, rooms=1, workers=4) for number in numbers} == {"lobby"}


def test_times_count_from_the_first_of_several_tests_of_a_worker(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    first_ns = pair.recorder.start_ns
    for number in (1, 2):
        pair.send(number, final=True)
        pair.arrive(pair.on_the_way[-1])
        pair.recorder.start()
    (worker,) = processes(pair.folder)
    assert (worker.monotonic_ns, pair.ids) == (first_ns, [1, 2])
