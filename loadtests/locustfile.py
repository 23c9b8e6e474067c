"""Plain Locust: `locust -f loadtests/locustfile.py --scenario FILE --host HOST:PORT`, against any running chat-server.

All of Locust's own options and its web UI work. Without `stages` in the scenario, `-u`, `-r` and `-t` (or the form
of the web UI) say how many users there are.
"""

import argparse
import functools
import gc
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import gevent
from locust import User, argument_parser, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from chat.arguments import parse_host_port
from chat.net.tls import client_context
from chat.net.transport import Address
from chat.protocol.errors import TlsError
from loadtests.config.yamlfile import Document
from loadtests.errors import ConfigError
from loadtests.load import shape, workers
from loadtests.load.engine import DRAIN_S, Engine
from loadtests.load.participant import JOIN_S
from loadtests.load.process import LOAD
from loadtests.load.recorder import Recorder
from loadtests.load.users import BroadcastUser, FileUser, ListeningUser, PrivateUser
from loadtests.samples import PAUSE
from loadtests.scenario.scenario import decode, load_of, read_document

__all__ = ["BroadcastUser", "FileUser", "ListeningUser", "PrivateUser"]


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--scenario", default="", help="Scenario file (YAML): users, messages, stages")
    parser.add_argument("--secondary", default="", help="HOST:PORT of the second connections, if not --host")
    parser.add_argument(
        "--ca", default="", help="Whom to trust if the scenario says `tls: true`, if not the system's authorities (PEM)"
    )
    parser.add_argument("--record", default="", help="Folder for the raw records of every message")
    # Of `chatlab run --web`: a socket that listens already, and a folder in which it says what it knows.
    parser.add_argument("--web-socket", type=int, include_in_web_ui=False, help=argparse.SUPPRESS)
    parser.add_argument("--live", default="", include_in_web_ui=False, help=argparse.SUPPRESS)


@events.init.add_listener
def set_up(environment: Environment, runner: Runner, **_: Any) -> None:
    """Let the scenario choose user classes and load shape; a worker gets all that from its master."""
    options = environment.parsed_options
    environment.stop_timeout = DRAIN_S + JOIN_S
    signal.signal(signal.SIGINT, _end)
    # Until the test is over Locust has no handler, and would die with what is not written yet.
    signal.signal(signal.SIGTERM, _end_early)
    folder = Path(options.record) if options.record else None
    if isinstance(runner, WorkerRunner):
        # Locust makes this anew for each option in each message that starts users; meanwhile no user runs.
        argument_parser.default_args_dict = functools.cache(argument_parser.default_args_dict)
        recorder = Recorder(folder and folder / "own", runner.worker_index)
        workers.run_worker(environment, LOAD, recorder)
        LOAD.set_up(recorder)
        return
    try:
        document = read_document(options.scenario) if options.scenario else Document.parse("{}", "no scenario")
        scenario = decode(document)[0]
        _address(environment.host or "")
        if options.secondary:
            _address(options.secondary)
        if scenario.tls:
            client_context(options.ca or None)
        environment.user_classes[:] = _taking_part(environment.user_classes, scenario.users)
    except (ConfigError, TlsError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    has_own_shape = environment.shape_class is not None
    if scenario.stages or (options.headless and options.num_users is None and not has_own_shape):
        environment.shape_class = shape.StagesShape(scenario.shape)
    # Locust hands these to its workers too. Two loads on one server must not fight for nicknames.
    options.load = {
        "scenario": load_of(document),
        "nick_prefix": os.urandom(2).hex(),
        "is_recorded": bool(folder),
        "workers": 1,
        "is_endless": not isinstance(environment.shape_class, shape.StagesShape),
    }
    if environment.web_ui or options.web_socket is not None:
        _show(environment, options.web_socket, Path(options.live) if options.live else None)
    if isinstance(runner, MasterRunner):
        del options.scenario, options.record, options.web_socket, options.live  # of this machine alone
        workers.run_master(environment, folder, LOAD.live)
    else:
        LOAD.set_up(Recorder(folder))
    # Locust counts the time of `-t` from when gevent last looked at its clock, which was before all of the above.
    gevent.get_hub().loop.update_now()


def _taking_part(user_classes: list[type[User]], users: dict[str, int]) -> list[type[User]]:
    """Of our classes those that the scenario names, as many as it says; those of a user's locustfile as they are.

    Raises ConfigError: nobody is left.
    """
    taking_part = [cls for cls in user_classes if cls.__name__ in users or cls.__name__ not in __all__]
    if not taking_part:
        found = ", ".join(cls.__name__ for cls in user_classes) or "none"
        raise ConfigError(f"no user class takes part: locust has {found}, the scenario's users are {', '.join(users)}")
    for user_class in taking_part:
        user_class.weight = users.get(user_class.__name__, user_class.weight)
    return taking_part


def _end(_number: int, _frame: FrameType | None) -> None:
    """Interrupt the main greenlet.

    Raised here, the exception would end whichever greenlet happens to run, such as the one that serves all users.
    """
    gevent.kill(gevent.get_hub().parent, KeyboardInterrupt)


def _end_early(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C does, but whoever sends SIGTERM does not wait for long."""
    if LOAD.engine:
        LOAD.engine.hurry()
    _end(number, frame)


def _show(environment: Environment, web_socket: int | None, folder: Path | None) -> None:
    """Our tabs in the web UI. Imported here: nobody else needs numpy."""
    from loadtests.load.live import LiveFigures
    from loadtests.load.webtab import add_tabs, note_end, serve

    figures = LOAD.live = LiveFigures()
    if web_socket is not None:
        serve(environment, web_socket)
    add_tabs(environment.web_ui, figures, folder)
    if folder:
        environment.events.quit.add_listener(lambda **_: note_end(figures, folder))


@events.test_start.add_listener
def start_recording(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, MasterRunner):
        return
    recorder = LOAD.wait_for_recorder()
    recorder.is_on |= environment.parsed_options.load["is_recorded"] or LOAD.live is not None
    recorder.start()
    if LOAD.engine is None:
        engine = LOAD.engine = _engine(environment, recorder)
        driver = gevent.spawn(engine.loop.serve)
        driver.link_exception(lambda greenlet: _fail(environment, greenlet.exception))
        gc.callbacks.append(PauseWatch(recorder))


def _engine(environment: Environment, recorder: Recorder) -> Engine:
    """What drives the users of this process."""
    options, runner = environment.parsed_options, environment.runner

    def report(kind: str, response_ms: float, size_bytes: int, error: Exception | None) -> None:
        environment.events.request.fire(
            request_type="chat",
            name=kind,
            response_time=response_ms,
            response_length=size_bytes,
            exception=error,
            context={},
        )

    def addresses() -> tuple[Address, Address | None]:
        # The host may be changed in the web UI until a user starts.
        return _address(environment.host), _address(options.secondary) if options.secondary else None

    document = Document("the scenario", options.load["scenario"], {(): "the scenario"}, "scenario")
    scenario = decode(document)[0]
    return Engine(
        scenario,
        addresses,
        recorder,
        report,
        tls=client_context(options.ca or None) if scenario.tls else None,
        nick_prefix=options.load["nick_prefix"],
        worker=runner.worker_index if isinstance(runner, WorkerRunner) else 0,
        workers=options.load["workers"],
        flush=LOAD.batch_sender.ship if LOAD.batch_sender else LOAD.flush,
        is_endless=options.load["is_endless"],
    )


@events.spawning_complete.add_listener
def spare_the_ramp(**_: Any) -> None:
    """A full garbage collection would stop the process for 20 ms and more; what the ramp made is here to stay."""
    gc.collect()
    gc.freeze()


class PauseWatch:
    """Records garbage collections of more than a millisecond, which look like delays of the network."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._began_ns = 0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        now_ns = time.monotonic_ns()
        if phase == "start":
            self._began_ns = now_ns
        elif now_ns - self._began_ns > 1_000_000:
            self._recorder.add(PAUSE, self._began_ns, now_ns - self._began_ns, info["generation"])


@events.quitting.add_listener
def write_the_rest(**_: Any) -> None:
    LOAD.flush()
    if LOAD.engine is not None:
        LOAD.engine.files.close()


def _address(text: str) -> Address:
    try:
        return parse_host_port(text)
    except ValueError as error:
        raise ConfigError(f"--host, --secondary: {error}") from None


def _fail(environment: Environment, error: BaseException) -> None:
    """The engine died: an exit code that cannot be mistaken for a slow server."""
    print(f"the load engine failed: {error!r}", file=sys.stderr)
    environment.process_exit_code = 2
    LOAD.users_engine().failed.set()
    environment.runner.quit()
