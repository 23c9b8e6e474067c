"""Plain Locust with our users: its own command, its own page."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from chat_helpers import server_process
from run_helpers import LOCUST

pytestmark = pytest.mark.realtime("runs")


def test_plain_locust_drives_a_running_server(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text("users: {BroadcastUser: 2, ListeningUser: 1}\nmessages: {rate: 5/s}\nwarmup: 0s")
    with server_process() as server:
        host = f"127.0.0.1:{server.address[1]}"
        options = ["--headless", "-u", "3", "-r", "10", "-t", "3s", "--scenario", str(scenario), "--host", host]
        done = subprocess.run([*LOCUST, *options, "--json"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        _, log = server.stop()
    (row,) = json.loads(done.stdout)
    assert row["name"] == "say"
    assert row["num_requests"] > 10
    assert log.count("is here from") == log.count("says bye") == 3


#: A signal that comes while all users are being served.
INTERRUPTED = """
import os
from locust import events
from loadtests.load.process import LOAD
from loadtests.locustfile import *

@events.spawning_complete.add_listener
def interrupt(**_):
    LOAD.engine.loop.call_later(0.5, lambda: os.kill(os.getpid(), {}))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whatever_a_signal_interrupts_all_users_leave_in_order(number: int, tmp_path: Path) -> None:
    scenario, locustfile = tmp_path / "s.yaml", tmp_path / "interrupted.py"
    scenario.write_text("users: {BroadcastUser: 3}\nmessages: {rate: 5/s}\nwarmup: 0s")
    locustfile.write_text(INTERRUPTED.format(int(number)))
    with server_process() as server:
        options = ["--headless", "-u", "3", "-r", "10", "--scenario", str(scenario)]
        options += ["--host", f"127.0.0.1:{server.address[1]}"]
        command = [sys.executable, "-m", "locust", "-f", str(locustfile), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        _, log = server.stop()
    assert log.count("is here from") == log.count("says bye") == 3, done.stderr
    assert "Traceback" not in done.stderr


def wait_for_port(port: int) -> None:
    """Return when somebody listens on the port."""
    deadline_s = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline_s, f"nobody listens on port {port}"
            time.sleep(0.05)


def our_tab_shows_answers(address: str) -> bool:
    """Return when the figures of the tab `Chat` tell of answered messages."""
    while True:
        with urllib.request.urlopen(address, timeout=10) as answer:
            tables = {table["key"]: table["data"] for table in json.load(answer)["extended_stats"]}
        if tables["chat"][1]["answered"] != "0":
            return True
        time.sleep(0.2)


def test_locusts_own_web_ui_is_served() -> None:
    with server_process() as server, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        options = ["--host", f"127.0.0.1:{server.address[1]}", "--web-host", "127.0.0.1", "--web-port", str(port)]
        locust = subprocess.Popen([*LOCUST, *options], stderr=subprocess.PIPE, text=True)
        try:
            wait_for_port(port)
            form = b"user_count=2&spawn_rate=2&host=" + options[1].encode()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/swarm", data=form, timeout=10) as answer:
                assert json.load(answer)["success"]
            assert our_tab_shows_answers(f"http://127.0.0.1:{port}/stats/requests")
        finally:
            locust.terminate()
            locust.communicate(timeout=30)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--host", "nonsense"], "expected HOST:PORT"), (["--scenario", "nowhere.yaml"], "no such file")],
)
def test_plain_locust_refuses_bad_options_in_one_line(options: list[str], message: str) -> None:
    done = subprocess.run([*LOCUST, "--headless", *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
