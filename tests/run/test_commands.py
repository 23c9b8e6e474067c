"""The commands of `chatlab` that run nothing, or little; and what they say when something is wrong."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_helpers import chatlab, refused

from chat.words import count
from loadtests.cli import main
from loadtests.commands.words import duration, size
from loadtests.data import shipped
from loadtests.errors import ConfigError, ExitCode
from loadtests.run import loading
from loadtests.samples import TABLES
from loadtests.scenario.scenario import read_document

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "s.yaml: the file is empty"),
        ("# nothing\n", "s.yaml: the file is empty"),
        ("- link: lan", "s.yaml: expected a mapping with keys from: description, link, "),
        (
            "seed: 1\nvary: {message.rate: [1/s, 2/s]}",
            "s.yaml:2: vary.message.rate: message: unknown key; did you mean",
        ),
        (
            "users: {BroadcastUser: 100000000000000000000}",
            "s.yaml:1: users.BroadcastUser: expected a whole number <= 100",
        ),
        ("stages: [{users: 200000, duration: 2s}]", "s.yaml:1: stages.0.users: expected a whole number <= 100"),
        ("repetitions: 1001", "s.yaml:1: repetitions: expected a whole number <= 1000"),
        (
            "thresholds: ['response_time_ms.p99 < 100', 'response_time_ms.p99 > 200']",
            "s.yaml:1: thresholds: 'response_time_ms.p99 < 100' and 'response_time_ms.p99 > 200' contradict each other",
        ),
        (
            "{clock: virtual, thresholds: ['count > 100']}",
            "s.yaml:1: thresholds: 'count > 100': virtual time tells no capacity, since computing takes none there; "
            "leave it out, or run in real time",
        ),
        (
            "link: {rtt: 40ms, timeline: [{at: 13s, outage: 1s}]}",
            "s.yaml:1: link.timeline: nothing happens at 13 s: the load ends after 12 s",
        ),
        (b"users: \xff", "s.yaml:1: cannot be read: this line is not UTF-8 text"),
    ],
)
def test_nonsense_is_refused_in_one_line(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    (tmp_path / "s.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    done = chatlab("check", tmp_path / "s.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_check_says_what_would_run(tmp_path: Path) -> None:
    scenario = tmp_path / "lunch.yaml"
    scenario.write_text(
        "users: {BroadcastUser: 3, PrivateUser: 1}\nmessages: {rate: 2/s}\nrepetitions: 3\n"
        "vary: {connections: [single, redundant]}\nthresholds: ['lost == 0', 'lost <= 5']"
    )
    lines = chatlab(
        "check", scenario, "--set", "link=train", "--results", tmp_path / "not" / "there"
    ).stdout.splitlines()
    assert lines[:3] == [
        "lunch",
        "users: 4 (3 BroadcastUser, 1 PrivateUser) in 1 room",
        "messages: 2/s and user (poisson), 120 B; 8/s in all, 20/s delivered",
    ]
    assert "thresholds: lost == 0; lost <= 5" in lines
    assert "variant redundant: primary train, secondary train" in lines
    assert "  note: what the link does from 15 s on comes after the end of the load" in lines
    assert lines[-3:-1] == ["6 trials: 2 variants, 3 repetitions", "time: about 3 min, of which 72 s are load"]
    assert lines[-1].startswith("disk: about ")


def test_check_says_that_users_are_shares_of_what_the_stages_say(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text("users: {BroadcastUser: 2, PrivateUser: 1}\nstages: [{users: 6, duration: 5s}]\n")
    assert "users: 6 (2 BroadcastUser to 1 PrivateUser) in 1 room" in chatlab("check", scenario).stdout
    scenario.write_text("users: {BroadcastUser: 10}\nstages: [{users: 5, duration: 5s}]\n")
    assert "users: 5 (BroadcastUser) in 1 room" in chatlab("check", scenario).stdout


def test_the_records_of_plain_locust_are_no_run_and_what_can_be_done_with_them_is_said(tmp_path: Path) -> None:
    (tmp_path / "4711.start").write_text("{}")
    done = chatlab("report", tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        f"chatlab: {tmp_path}: raw records of plain Locust (--record), not a run: in Python, "
        "loadtests.run.collect.tables_of(folder, trial=1, warmup_s=0, paths={}) makes tables of them; "
        "`chatlab run` with `server: HOST:PORT` in the scenario makes a run\n",
    )


def test_check_says_that_a_slow_link_takes_long_to_measure(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("link: {rate: 1kbit}\n")
    lines = chatlab("check", tmp_path / "s.yaml").stdout.splitlines()
    assert "  note: so slow a link takes 16 min to measure in each trial" in lines
    assert "time: about 16 min, of which 12 s are load" in lines


def test_files_that_a_scenario_names_are_taken_from_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "opportunities").write_text("1\n2\n")
    (folder / "traced.yaml").write_text("delay: 5ms\ntrace: opportunities\nqueue: 20ms\n")
    (folder / "s.yaml").write_text("vary: {link: [./traced.yaml, {delay: 7ms, trace: opportunities, queue: 20ms}]}\n")
    done = chatlab("check", folder / "s.yaml")
    assert done.returncode == 0, done.stderr
    assert "rate by trace" in done.stdout


@pytest.mark.parametrize("key", ["link.trace", "link.up.trace"])
def test_a_trace_that_is_varied_is_taken_from_beside_the_scenario(tmp_path: Path, key: str) -> None:
    (tmp_path / "one").write_text("1\n")
    (tmp_path / "s.yaml").write_text(f"vary: {{{key}: [one]}}\n")
    done = chatlab("check", tmp_path / "s.yaml")
    assert done.returncode == 0, done.stderr
    assert "rate by trace" in done.stdout


def test_init_writes_a_scenario_that_can_be_run(tmp_path: Path) -> None:
    scenario = tmp_path / "new" / "lunch.yaml"
    assert chatlab("init", scenario.with_suffix("")).returncode == 0
    assert chatlab("check", scenario).stdout.startswith("lunch: lunch\n")
    again = chatlab("init", scenario)
    assert (again.returncode, again.stderr) == (2, f"chatlab: init: {scenario} exists already\n")


def test_profiles_have_a_header() -> None:
    header, *links = chatlab("profiles").stdout.splitlines()
    assert header.split("  ")[0] == "link"
    assert any(line.startswith("lossy-wifi") and line.endswith("synthetic") for line in links)


def test_whoever_reads_no_further_is_no_failure() -> None:
    """As `chatlab profiles | head -1` has it."""
    unread, output = os.pipe()
    os.close(unread)
    with open(output, "wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "loadtests", "profiles"], stdout=file, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_doctor_says_what_works() -> None:
    done = chatlab("doctor")
    assert done.returncode == 0, done.stdout
    subjects = [line[4:16].strip() for line in done.stdout.splitlines()]
    assert subjects[:4] == ["chatlab", "namespaces", "emulator", "netem"]
    assert len(subjects) == 10
    assert all(line[:2] in ("ok", "--") for line in done.stdout.splitlines())


@pytest.mark.parametrize("place", ["a file", "a file/below"])
def test_results_that_cannot_be_written_are_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("")
    done = chatlab("run", "baseline", "--results", tmp_path / place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"chatlab: {tmp_path}/a file")
    assert done.stderr.endswith("cannot be written: not a directory\n")


@pytest.mark.parametrize("served", ["", "'half"])
def test_what_is_no_command_is_not_served(capsys: pytest.CaptureFixture[str], served: str) -> None:
    said = refused(capsys, "link", "lan", "--serve", served, "--", "true")
    assert f"--serve: expected a command such as 'iperf3 -s', got {served!r}" in said


@pytest.mark.parametrize("command", [["run", "demo", "--junit"], ["compare", "a run", "--by", "link", "--html"]])
def test_a_file_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, *command, "not/there.xml")
    assert said == "chatlab: not/there.xml: cannot be written: no such file or directory\n"
    assert not any(tmp_path.iterdir())


def test_a_run_of_a_stranger_cannot_act_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(shipped("results") / "reference", tmp_path / "run")
    manifest = (run / "run.json").read_text()
    (run / "run.json").write_text(manifest.replace('"lan"', '"\\u001b[2Jlan"'))
    assert main(["compare", str(run), "--by", "link"]) == ExitCode.PASSED
    printed = capsys.readouterr().out
    assert r"\x1b[2Jlan" in printed
    (run / "messages.csv").write_text(f"{','.join(TABLES['messages'])}\n\x1b[2J\n")
    assert main(["compare", str(run), "--by", "link"]) == ExitCode.ERROR
    printed += capsys.readouterr().err
    assert "\x1b" not in printed


def test_what_is_varied_is_not_overridden_in_vain(capsys: pytest.CaptureFixture[str]) -> None:
    for setting in ("link=satellite", "link.loss=2%"):
        said = refused(capsys, "check", "demo", "--set", setting)
        assert said == f"chatlab: --set {setting}: no variant would have it, since the scenario varies link\n"
    assert main(["check", "demo", "--set", "vary={link: [lan]}", "--set", "messages.rate=5/s"]) == ExitCode.PASSED


def test_load_processes_run_the_code_that_started_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locust runs in another folder, from which another copy may be found first."""
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert loading._environment()["PYTHONPATH"] == f"{Path(loading.__file__).parents[2]}:/elsewhere"
    monkeypatch.delenv("PYTHONPATH")
    assert loading._environment()["PYTHONPATH"] == str(Path(loading.__file__).parents[2])


def test_a_port_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a port, 0 to 65535, got '99999'" in refused(capsys, "run", "demo", "--web", "--web-port=99999")


def test_link_waits_until_the_other_side_listens() -> None:
    listen = 'import socket, time; time.sleep(0.5); socket.create_server(("0.0.0.0", 7000)).accept()'
    late = shlex.join([sys.executable, "-c", listen])
    knock = "import socket; socket.create_connection(('{server}', 7000), timeout=5); print('met')"
    done = chatlab("link", "lan", "--serve", late, "--", sys.executable, "-c", knock)
    assert (done.returncode, done.stdout) == (0, "met\n"), done.stderr
    done = chatlab("link", "lan", "--serve", "false", "--", "true")
    assert done.returncode == 2
    assert done.stderr.endswith("chatlab: false ended with exit code 1 before it listened on a port\n")


def test_completion() -> None:
    """As the shell asks: the words so far in variables, the answer on descriptor 8."""
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": "chatlab run --res", "COMP_POINT": "17", "_ARGCOMPLETE_IFS": "\n"}
    shell = 'exec "$0" -m loadtests 8>&1 >/dev/null'
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert [word.strip() for word in done.stdout.split("\n")] == ["--resume", "--results"]


def test_every_program_says_its_version() -> None:
    for module in (["loadtests"], ["chat", "serve"], ["chat", "connect"]):
        done = subprocess.run([sys.executable, "-m", *module, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.split()[0] in ("chatlab", "chat-server", "chat-client")
        assert "0.1.0" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        *("check NAME", "check NAME.yaml", "check demo --set link=NAME", "link NAME -- true", "run demo --junit NAME"),
        *("run --resume NAME", "report NAME", "compare NAME NAME", "message NAME 1:1", "verify NAME"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    name = "w" * 300
    said = refused(capsys, *arguments.replace("NAME", name).split())
    assert said.startswith("chatlab: ")
    assert name in said
    assert said.count("\n") == 1


def test_words() -> None:
    assert [count(1, "trial"), count(2, "trial"), count(2, "copy", "copies")] == ["1 trial", "2 trials", "2 copies"]
    assert [duration(45), duration(600), duration(12_000)] == ["45 s", "10 min", "3 h 20 min"]
    assert [size(900), size(4_900_000), size(72e9)] == ["0.9 kB", "4.9 MB", "72 GB"]


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("lnk: lan", [], "s.yaml:1: lnk: unknown key; did you mean 'link'? allowed: "),
        ("users: {BroadcastUser: ten}", [], "s.yaml:1: users.BroadcastUser: expected a whole number, got 'ten'"),
        ("link: {rtt: 10mbit}", [], "s.yaml:1: link.rtt: expected a time with a unit"),
        ("link: moon", [], "s.yaml:1: link: unknown link 'moon'; known: 2g, "),
        ("link: lan", ["messages.rate=5"], "--set messages.rate=5: messages.rate: expected a rate of events"),
        ("link: lan", ["message.rate=5/s"], "--set message.rate=5/s: message: unknown key; did you mean 'messages'? "),
        ("link: lan", ["rate"], "--set rate: expected KEY=VALUE"),
        ("link: lan", ["link="], "--set link=: expected KEY=VALUE"),
        ("link: lan", ["messages.²=1"], "--set messages.²=1: messages.²: unknown key"),
        (None, [], "s.yaml: no such file"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, settings: list[str], message: str
) -> None:
    scenario = tmp_path / "s.yaml"
    if text is not None:
        scenario.write_text(text)
    options = ["--results", tmp_path / "results", *(f"--set={each}" for each in settings)]
    said = refused(capsys, "run", scenario, *options)
    assert said.count("\n") == 1, said
    assert message in said
    assert not (tmp_path / "results").exists()


def test_a_folder_is_no_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert read_document("demo").title == "demo"
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="mine: no such scenario; allowed: the path of a file, or one of: "):
        read_document("mine")


def test_check_of_the_demo() -> None:
    done = chatlab("check", "demo")
    assert done.returncode == 0
    assert "6 trials" in done.stdout
    assert "satellite redundant" in done.stdout


ELSEWHERE = "link: lan\nserver: 127.0.0.1:1"


@pytest.mark.parametrize(
    ("scenario", "options", "sentence"),
    [
        (ELSEWHERE, [], "link: the server is elsewhere, so name the interface that leads to it: --interface NAME"),
        (ELSEWHERE, ["--interface", "lo"], "127.0.0.1:1: ECONNREFUSED: no server answers there"),
        ("link: lan", ["--interface", "lo"], "--interface: only for a scenario with both a link and server: HOST:PORT"),
    ],
)
def test_a_run_touches_an_interface_only_if_it_is_named(
    scenario: str, options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "elsewhere.yaml"
    file.write_text(scenario)
    assert refused(capsys, "run", file, "--results", tmp_path, *options) == f"chatlab: {sentence}\n"
