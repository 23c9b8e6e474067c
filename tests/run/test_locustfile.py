"""What the locustfile makes of Locust as it starts: who takes part, for how long, and from when time counts.

Locust is not to be imported here; so all cases run in one process of its own.
"""

import json
import subprocess
import sys
from typing import Any

import pytest
from run_helpers import ROOT

#: Starts Locust's environment as its command does, and prints what has become of it.
SCRIPT = """
import contextlib, io, json, sys, tempfile, time
from argparse import Namespace
from pathlib import Path
from unittest.mock import Mock

import gevent
from locust import LoadTestShape, User, argument_parser
from locust.env import Environment
from locust.rpc import Message
from locust.runners import WorkerRunner

from loadtests import locustfile
from loadtests.load.users import BroadcastUser, ChatUser, ListeningUser

class Shouter(ChatUser):
    weight = 3

class Other(User):
    pass

class Own(LoadTestShape):
    tick = None

def start(scenario, *user_classes, shape_class=None, num_users=None):
    file = Path(tempfile.mkdtemp(), "s.yaml")
    file.write_text(scenario)
    options = Namespace(record="", secondary="", web_socket=None, headless=True, num_users=num_users)
    options.scenario = str(file)
    environment = Environment(
        user_classes=list(user_classes), shape_class=shape_class, host="127.0.0.1:1", parsed_options=options
    )
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            locustfile.set_up(environment, Mock())
        except SystemExit as exit:
            return {"code": exit.code, "said": said.getvalue()}
    return {
        "classes": {cls.__name__: cls.weight for cls in environment.user_classes},
        "shape": type(environment.shape_class).__name__,
        "is_endless": options.load["is_endless"],
    }

def start_users(times):
    # How often a worker makes Locust's parser of its own options as it is told to start users.
    made = Mock(side_effect=argument_parser.get_empty_argument_parser)
    argument_parser.get_empty_argument_parser = made
    environment = Environment(parsed_options=Namespace(record=""))
    worker = Mock(spec=WorkerRunner, worker_index=0, environment=environment, worker_state="running", client_id="")
    worker.configure_mock(client=Mock(), last_received_spawn_timestamp=0, greenlet=Mock(), spawning_greenlet=None)
    environment.runner = worker
    locustfile.set_up(environment, worker)
    for number in range(times):
        options = {"loglevel": "INFO", "users": 1, "headless": True}
        job = {"timestamp": number + 1, "host": "", "stop_timeout": 1, "user_classes_count": {}}
        job["parsed_options"] = options
        WorkerRunner.handle_message(worker, Message("spawn", job, None))
    return made.call_count

loop = gevent.get_hub().loop
began_s = loop.now()
while time.time() <= began_s:
    pass
found = {
    "own": start("users: {BroadcastUser: 2}", BroadcastUser, ListeningUser, Shouter, Other),
    "nobody": start("users: {BroadcastUser: 2}", ListeningUser),
    "stages": start("stages: [{users: 2, duration: 5s}]", BroadcastUser),
    "no stages": start("seed: 1", BroadcastUser),
    "-u": start("seed: 1", BroadcastUser, num_users=1),
    "own shape": start("seed: 1", BroadcastUser, shape_class=Own()),
    "parsers": start_users(times=3),
}
json.dump({"waited": loop.now() > began_s, **found}, sys.stdout)
"""


@pytest.fixture(scope="module")
def started() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_a_locustfile_adds_takes_part_beside_those_that_the_scenario_names(started: dict[str, Any]) -> None:
    assert started["own"]["classes"] == {"BroadcastUser": 2, "Shouter": 3, "Other": 1}


def test_a_load_in_which_nobody_takes_part_is_refused(started: dict[str, Any]) -> None:
    assert started["nobody"] == {
        "code": 2,
        "said": "no user class takes part: locust has ListeningUser, the scenario's users are BroadcastUser\n",
    }


@pytest.mark.parametrize(
    ("name", "shape", "is_endless"),
    [
        ("stages", "StagesShape", False),
        ("no stages", "StagesShape", False),
        ("-u", "NoneType", True),
        ("own shape", "Own", True),
    ],
)
def test_the_scenario_decides_when_the_load_ends_unless_locust_does(
    started: dict[str, Any], name: str, shape: str, is_endless: bool
) -> None:
    assert (started[name]["shape"], started[name]["is_endless"]) == (shape, is_endless)


def test_the_time_of_a_load_counts_from_when_locust_has_started(started: dict[str, Any]) -> None:
    """Locust's `-t` is a timer of gevent, which begins at what the loop takes for now: before all imports, perhaps."""
    assert started["waited"]


def test_whoever_runs_does_not_wait_for_locust_to_start_others(started: dict[str, Any]) -> None:
    """Locust's worker made a parser of all its options for each option in each such message."""
    assert started["parsers"] == 1
