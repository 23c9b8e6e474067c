"""A run: its trials in turn, each with links, server and load of its own; every step undone, whatever happens."""

import subprocess
from contextlib import AbstractContextManager, ExitStack

import msgspec

from loadtests.clocks import wall_ahead_ns
from loadtests.errors import ExitCode, HarnessError
from loadtests.link.backends.backend import BackendName
from loadtests.link.backends.interface import open_interface
from loadtests.link.backends.links import Links
from loadtests.link.lab import Lab, open_lab
from loadtests.load.batches import cut_short
from loadtests.run import collect, linktable, server
from loadtests.run.capture import capturing
from loadtests.run.children import seconds_of, tail
from loadtests.run.directory import RunDirectory
from loadtests.run.interrupt import Interrupt
from loadtests.run.loading import load as load_of_trial
from loadtests.run.machine import MachineSampler
from loadtests.run.manifest import TrialRecord
from loadtests.run.progress import Progress
from loadtests.run.wire.watch import watching
from loadtests.scenario.matrix import Trial


def run_trials(directory: RunDirectory, trials: list[Trial], backend: BackendName) -> ExitCode:
    """All trials in order; partial results are kept and marked. Returns the verdict.

    Raises:
        HarnessError: the harness, the server or the link failed.
        KeyboardInterrupt: the user ended it.
    """
    interrupt = Interrupt()
    manifest = directory.manifest
    try:
        with Progress(trials) as progress:
            for trial in trials:
                _TrialRun(directory, trial, backend, progress, interrupt).run()
                manifest.state = manifest.trials[-1].state
                if manifest.state != "finished":
                    break
        return ExitCode.PASSED
    except KeyboardInterrupt:
        manifest.state = "interrupted"
        raise
    except HarnessError as error:
        manifest.state = f"failed: {error}"
        raise
    finally:
        directory.save()


class _TrialRun:
    """One trial from its links to its rows."""

    def __init__(
        self, directory: RunDirectory, trial: Trial, backend: BackendName, progress: Progress, interrupt: Interrupt
    ) -> None:
        self._directory = directory
        self._trial = trial
        self._backend = backend
        self._progress = progress
        self._interrupt = interrupt
        self._options = directory.manifest.load_options
        self._raw = directory.raw(trial)
        self._record = TrialRecord(
            number=trial.number,
            name=trial.name,
            repetition=trial.repetition,
            variant=trial.variant,
            seed=trial.seed,
            links={path: msgspec.to_builtins(profile) for path, profile in trial.links.items()},
        )

    def run(self) -> None:
        """Run it; whatever happens, what was measured becomes rows, and its record says what happened."""
        self._raw.mkdir(parents=True)
        clocks_ns = wall_ahead_ns()
        self._progress.begin(self._trial)
        state = "failed"
        try:
            self._interrupt.check()
            self._measure()
            state = cut_short(self._raw) or "finished"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            # Server and load have ended here, so that all they wrote is there.
            self._record.clock_step_ms = (wall_ahead_ns() - clocks_ns) / 1e6
            self._record.state = state
            self._progress.end(self._trial, self._raw)
            self._directory.finish(self._trial, self._record)

    def _measure(self) -> None:
        """The link without load, with it, and without it again."""
        with ExitStack() as stack:
            links = stack.enter_context(self._open_links()) if self._trial.links else None
            if links:
                self._calibrate(links, "before")
            with ExitStack() as running:  # nobody else sends when it is left
                self._run_load(links, running)
            if self._record.wire and self._record.wire.doubt:
                self._progress.note(f"trial {self._trial.number}: {self._record.wire.doubt}")
            if links:
                self._record.link_counters = links.stats()
                changes = linktable.changed(links, collect.start_ns_of(self._raw))
                self._directory.append("link", changes.assign(trial=self._trial.number))
                self._progress.say(self._trial, "measuring the link again")
                links.stop()
                links.settle()
                self._calibrate(links, "after")

    def _open_links(self) -> AbstractContextManager[Links]:
        """The links of the trial: a laboratory of our own, or the way to a server elsewhere."""
        trial, interface = self._trial, self._directory.manifest.interface
        if interface is None:
            return open_lab(trial.links, backend=self._backend, seed=trial.seed)
        return open_interface(interface, *trial.scenario.server.address, trial.links["primary"])

    def _calibrate(self, links: Links, when: linktable.When) -> None:
        self._record.backend = links.backend
        self._directory.append("link", linktable.measured(links, when).assign(trial=self._trial.number))

    def _run_load(self, links: Links | None, running: ExitStack) -> None:
        """Server and load, from their start to the end of the load; both end when `running` is left."""
        trial, raw = self._trial, self._raw
        lab = links if isinstance(links, Lab) else None
        chat_server = None
        if lab:
            self._record.congestion_control = trial.scenario.congestion
            self._record.addresses = lab.addresses
            if self._directory.captures:
                running.enter_context(capturing(lab, raw, list(trial.links)))
            if self._directory.manifest.stamps == "wire":
                self._record.wire = running.enter_context(watching(lab, raw, server.PORT))
            chat_server = running.enter_context(server.embedded_server(lab, trial.scenario.congestion, raw))
        if links:
            links.start()  # the load meets fresh randomness, however long calibration took
        load = running.enter_context(load_of_trial(lab, trial, raw, server.PORT, self._options))
        if "--master" in self._options:
            self._progress.say(trial, "waiting for workers")
        self._watch(load, links, chat_server)
        # 1: some messages failed, which the tables tell in full; 3: a worker is lost, as LOST tells.
        if load.returncode not in (0, 1, 3):
            raise HarnessError(f"Locust ended with exit code {load.returncode}:\n{tail(raw / 'locust.log')}")

    def _watch(
        self, load: "subprocess.Popen[bytes]", links: Links | None, chat_server: "subprocess.Popen[bytes] | None"
    ) -> None:
        """Once a second until the load has ended: sample the machine, and see that all that is needed is alive."""
        pids = {"master": load.pid} if self._options else {}
        if chat_server:
            pids["server"] = chat_server.pid
        if links and links.link_pid:
            pids["link"] = links.link_pid
        awaits_timeline = any(profile.timeline for profile in self._trial.links.values())
        sampler = MachineSampler(pids)
        try:
            for _ in seconds_of(load):
                self._interrupt.check()
                sampler.sample()
                self._progress.follow(self._trial, self._raw)
                if links:
                    links.check()
                if links and awaits_timeline and (began := collect.started(self._raw)):
                    links.start(began.monotonic_ns)
                    awaits_timeline = False
                if chat_server:
                    server.check(chat_server, self._raw)
        finally:
            rows = sampler.rows(collect.start_ns_of(self._raw))
            self._directory.append("machine", rows.assign(trial=self._trial.number))
