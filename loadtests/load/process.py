"""What a Locust process holds of a load: its recorder, and once a test has begun, its engine."""

from typing import TYPE_CHECKING

from gevent.event import Event

from loadtests.load.batches import BatchSender
from loadtests.load.engine import Engine
from loadtests.load.recorder import Recorder

if TYPE_CHECKING:
    from loadtests.load.live import LiveFigures


class LoadProcess:
    """Filled in as Locust starts; a master, which has no users, keeps none of it."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        #: Sends what a worker records to its master.
        self.batch_sender: BatchSender | None = None
        self.engine: Engine | None = None
        #: For the web UI, if there is one; not in a worker.
        self.live: LiveFigures | None = None
        self._has_recorder = Event()

    def set_up(self, recorder: Recorder) -> None:
        """Whose test may begin."""
        self.recorder = recorder
        self._has_recorder.set()

    def wait_for_recorder(self) -> Recorder:
        """Locust may start a worker's test before it has set the worker up."""
        self._has_recorder.wait()
        assert self.recorder is not None
        return self.recorder

    def flush(self) -> None:
        """Write out what was recorded, and show it to whoever looks."""
        batch = self.recorder.flush() if self.recorder else {}
        if self.live:
            self.live.take(batch)

    def users_engine(self) -> Engine:
        """The engine, which is there as soon as users are."""
        assert self.engine is not None
        return self.engine


#: That of this process.
LOAD = LoadProcess()
