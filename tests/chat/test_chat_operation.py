"""For whoever operates a server: its metrics, its statistics on SIGUSR1, and its log as JSON."""

import argparse
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_helpers import SECOND, RawClient, ServerProcess
from prometheus_client.parser import text_string_to_metric_families

from chat import server
from chat.__main__ import _back_in
from chat.arguments import seconds
from chat.server.logs import JsonLines, TextLines, Throttle

#: A port that the system chooses; the log says which.
OPTIONS = ("127.0.0.1", "--metrics", "0")


def scraped(url: str) -> dict[str, float]:
    """The metrics, as Prometheus' own reader understands them."""
    with urllib.request.urlopen(url, timeout=10 * SECOND) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.mark.realtime("chat")
def test_metrics_count_what_happened() -> None:
    server = ServerProcess(*OPTIONS)
    url = server.wait_for(r"(http://127.0.0.1:\d+/metrics)")
    with RawClient(server.address, "ana") as ana, RawClient(server.address, "ben") as ben:
        ana.until("joined", nick="ben")
        before = scraped(url)
        for number in range(1, 11):
            ana.send(type="say", text="hi", id=number)
            ana.send(type="say", text="hi", id=number)
        ana.send(type="say", text="nobody hears it", room="nowhere")
        ana.sync()
        ben.sync()
        after = scraped(url)
        with RawClient(server.address):
            strange = scraped(url)
        server.process.send_signal(signal.SIGUSR1)
        server.wait_for(r"statistics: (chat_sessions 2), ")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url.replace("metrics", ""), timeout=10 * SECOND)
    assert server.stop()[0] == 0
    assert (after["chat_sessions"], after["chat_connections"], after["chat_rooms"]) == (2, 2, 1)
    assert (after["chat_strangers"], strange["chat_strangers"]) == (0, 1)
    assert after["chat_duplicates_total"] == 10
    assert after["chat_refusals_total{code=not_in_room}"] == 1
    assert after["chat_lines_total"] - before["chat_lines_total"] == 11, "ten in the room, one in ana's inbox"
    assert after["chat_deliveries_total"] - before["chat_deliveries_total"] == 21
    assert after["chat_sent_bytes_total"] - before["chat_sent_bytes_total"] > 20 * 60
    assert after["chat_lag_lines_max"] == after["chat_skipped_total"] == 0
    assert after["chat_turn_seconds_bucket{le=+Inf}"] == after["chat_turn_seconds_count"] > 3
    assert 0 < after["process_cpu_seconds_total"] < 60
    assert after["process_resident_memory_bytes"] > 1e7
    assert after["process_open_fds"] > 3


@pytest.mark.realtime("chat")
def test_a_log_of_json_lines() -> None:
    command = [sys.executable, "-m", "chat", "serve", "--port", "0", "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        assert first["message"].startswith("listening on 127.0.0.1:")
        port = int(first["message"].rpartition(":")[2])
        with RawClient(("127.0.0.1", port), "ana") as ana:
            ana.sync()
        process.terminate()
        entries = [json.loads(line) for line in process.stderr]
    assert [entry["level"] for entry in entries] == ["info"] * len(entries)
    assert any(entry["message"].startswith("ana is here from 127.0.0.1:") for entry in entries)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]) for entry in entries)


def test_json_lines_keep_a_record_on_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("chat", logging.ERROR, "", 1, "a %s", ("\n\x1b",), sys.exc_info())
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "a \n\x1b"
    assert "ValueError" in json.loads(line)["traceback"]


@pytest.mark.parametrize("text", ["1e300", "inf", "nan", "-1", "soon"])
def test_a_time_that_no_clock_counts_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number of seconds from 0 to 1e"):
        seconds(text)


def test_a_server_is_away_for_a_day_at_most() -> None:
    """Clients take no longer time, and would not know what became of their messages."""
    assert (_back_in("86400"), _back_in("never")) == (86_400, None)
    with pytest.raises(argparse.ArgumentTypeError, match="a day at most"):
        _back_in("86401")


def test_nobody_can_forge_a_line_of_the_log() -> None:
    said = 'Invalid value "x\n2026-11-28 00:00:00,000 root is here\x1b[31m"'
    record = logging.LogRecord("chat", logging.INFO, "", 1, "%s is sent away: %s", ("1.2.3.4:5", said), None)
    line = TextLines().format(record)
    assert line.isprintable()
    assert r"\n2026-11-28 00:00:00,000 root is here\x1b[31m" in line


def test_a_crowd_does_not_fill_the_log() -> None:
    throttle = Throttle(3)
    now_s = time.time()

    def passes(level: int, at_s: float) -> str | None:
        record = logging.LogRecord("chat", level, "", 1, "%d is here", (7,), None)
        record.created = at_s
        return record.getMessage() if throttle.filter(record) else None

    assert [passes(logging.INFO, now_s) for _ in range(5)] == ["7 is here"] * 3 + [None] * 2
    assert passes(logging.WARNING, now_s) == "7 is here"
    assert passes(logging.INFO, now_s + 1) == "7 is here (2 lines before it left out)"
    assert passes(logging.INFO, now_s + 1) == "7 is here"


HERE = Path(server.__file__).parent
UNIT = (HERE / "chat-server.service").read_text()
INSTALLED = "/opt/chatlab/bin/chat-server"


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / "chat-server.service"
    unit.write_text(UNIT.replace(INSTALLED, "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def units_command(folder: Path) -> list[str]:
    """What systemd would start, with its state in this folder."""
    (command,) = re.findall("^ExecStart=(.*)$", UNIT, re.MULTILINE)
    program, *options = command.replace("%S/chat-server", str(folder)).split()
    assert program == INSTALLED
    return options


def containers_command(folder: Path) -> list[str]:
    """What a container starts, with its volume in this folder."""
    file = (HERE / "Containerfile").read_text()
    (volume,) = re.findall("^VOLUME (.*)$", file, re.MULTILINE)
    (command,) = re.findall("^ENTRYPOINT (.*)$", file, re.MULTILINE)
    program, *options = json.loads(command.replace(volume, str(folder)))
    assert program == "chat-server"
    return options


@pytest.mark.parametrize("command", [units_command, containers_command])
def test_it_needs_no_capability(command: Callable[[Path], list[str]], tmp_path: Path) -> None:
    """As systemd or a container would start it, but for the user, who may not be able to read this Python: whoever we
    are."""
    options = command(tmp_path)
    options[options.index("--port") + 1] = "0"
    words = [sys.executable, "-m", "chat", "serve", *options, "--log-format", "json"]
    powerless = ["setpriv", "--no-new-privs", *(["--bounding-set=-all"] if os.geteuid() == 0 else [])]
    with subprocess.Popen([*powerless, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        assert line["message"].startswith("listening on "), line
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status.splitlines()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert (tmp_path / "journal").exists()
