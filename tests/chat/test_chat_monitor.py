"""`chat-server --tcp-info` and `--congestion`."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from chat_helpers import RawClient, ServerProcess

from chat.server.monitor import COLUMNS

pytestmark = pytest.mark.realtime("chat")


def test_every_connection_is_recorded_at_its_end(tmp_path: Path) -> None:
    file = tmp_path / "tcp.csv"
    server = ServerProcess("127.0.0.1", "--tcp-info", str(file), "--congestion", "reno")
    with RawClient(server.address, "ana") as ana, RawClient(server.address, "bob") as bob:
        ana.send(type="say", text="hi")
        bob.until("said")
    assert server.stop()[0] == 0
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert {row["nick"] for row in rows} == {"ana", "bob"}
    assert {row["local_address"] for row in rows} == {"127.0.0.1"}
    assert all(int(row["bytes_sent"]) > 100 for row in rows)
    assert all(row["total_retrans"] == "0" for row in rows)


def test_a_full_disk_costs_rows_and_not_the_chat() -> None:
    server = ServerProcess("127.0.0.1", "--tcp-info", "/dev/full")
    with RawClient(server.address, "ana") as ana:
        said = server.wait_for(r"(--tcp-info cannot be written.*)")
        assert said == "--tcp-info cannot be written: no space left on device; rows are missing"
        assert ana.sync() == []
    code, log = server.stop()
    assert code == 0
    assert log.count("cannot be written") == 1
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--congestion", "nonsense"), "TCP congestion control nonsense cannot be used here"),
        (("--tcp-info", "/nowhere/tcp.csv"), "Cannot write /nowhere/tcp.csv"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(options: tuple[str, str], sentence: str) -> None:
    done = subprocess.run([sys.executable, "-m", "chat", "serve", *options], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
