"""How a Locust master and its workers bring all samples together, and end in an order in which none is lost.

Locust's master tells its workers to quit and leaves half a second later, whatever they still have to say. Here it first
asks each worker to finish: its users leave, what they recorded is sent, and only after the last batch has come does
Locust go on. A worker that dies, or leaves by itself, ends the test.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent

from loadtests.errors import ExitCode
from loadtests.load.batches import LOST, BatchSender, Collector
from loadtests.load.process import LoadProcess
from loadtests.load.recorder import Recorder, clock

if TYPE_CHECKING:
    from loadtests.load.live import LiveFigures

_RECORDS, _FINISH = "chatlab_records", "chatlab_finish"
#: How often the master looks who is there, and asks again those who have not finished.
_WATCH_S = 1.0
_POLL_S = 0.05


def run_worker(environment: Any, load: LoadProcess, recorder: Recorder) -> None:
    """Make this process a worker that sends all that it records to its master, and ends only after that."""
    runner = environment.runner
    batch_sender = load.batch_sender = BatchSender(recorder, lambda batch: runner.send_message(_RECORDS, batch))

    def say_all(**_: Any) -> None:
        if load.engine is not None:
            batch_sender.ship(final=True)

    def finish(**_: Any) -> None:
        runner.stop()  # returns when all users are gone
        say_all()

    runner.register_message(_FINISH, finish)
    environment.events.test_stop.add_listener(say_all)
    # Listeners of `quitting` are called last one first: users are gone before Locust's own says goodbye to the master.
    environment.events.quitting.add_listener(finish)


def run_master(environment: Any, folder: Path | None, live: "LiveFigures | None" = None) -> None:
    """Make this process a master, which waits for the last record and keeps all in `folder` (None: nowhere).

    What comes is shown to `live` too.
    """
    runner = environment.runner
    collector = Collector(folder, clock())
    recorder = Recorder(folder)
    losses: list[str] | None = None

    def begin(**_: Any) -> None:
        nonlocal losses
        losses = None
        recorder.start()
        environment.parsed_options.load["workers"] = len(runner.clients.all)
        collector.expect({worker.id: runner.get_worker_index(worker.id) for worker in runner.clients.all})

    def is_ending(**_: Any) -> None:
        collector.is_ending = True

    def finish(**_: Any) -> None:
        nonlocal losses
        is_ending()
        deadline_s = time.monotonic() + 2 * environment.stop_timeout
        while collector.awaited and time.monotonic() < deadline_s:
            for name in collector.awaited:
                runner.send_message(_FINISH, client_id=name)
            _wait_while(lambda: collector.awaited)
        if losses is None:  # `quitting` comes after `test_stop`
            losses = collector.losses()
            if losses:
                _tell(environment, folder, losses)

    def watch() -> None:
        while True:
            gevent.sleep(_WATCH_S)
            if collector.gone and not collector.is_ending:
                _end(environment)

    def take(environment: Any, msg: Any) -> None:
        collector.take(msg.node_id, msg.data)
        if live:
            live.take(msg.data["data"])

    runner.register_message(_RECORDS, take)
    environment.events.test_start.add_listener(begin)
    environment.events.test_stopping.add_listener(is_ending)
    environment.events.test_stop.add_listener(finish)
    environment.events.quitting.add_listener(finish)
    gevent.spawn(watch)


def _tell(environment: Any, folder: Path | None, losses: list[str]) -> None:
    print(*losses, sep="\n", file=sys.stderr)
    environment.process_exit_code = int(ExitCode.NOT_TRUSTWORTHY)
    if folder:
        (folder / LOST).write_text("\n".join(losses))


def _wait_while(condition: Any) -> None:
    """At most until it is time to ask again."""
    deadline_s = time.monotonic() + _WATCH_S
    while condition() and time.monotonic() < deadline_s:
        gevent.sleep(_POLL_S)


def _end(environment: Any) -> None:
    """End the test early, the way it would end by itself."""
    if environment.shape_class:
        environment.shape_class.is_over = True
    elif environment.parsed_options.headless:
        environment.runner.quit()
    else:
        environment.runner.stop()
