"""What the locustfile makes of Locust as it starts: how it starts users.

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
import json, sys
from argparse import Namespace
from unittest.mock import Mock

from locust import argument_parser
from locust.env import Environment
from locust.rpc import Message
from locust.runners import WorkerRunner

from loadtests import locustfile

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

found = {
    "parsers": start_users(times=3),
}
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def started() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_whoever_runs_does_not_wait_for_locust_to_start_others(started: dict[str, Any]) -> None:
    """Locust's worker made a parser of all its options for each option in each such message."""
    assert started["parsers"] == 1
