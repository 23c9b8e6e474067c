"""A run: its trials in turn, each with links, server and load of its own; every step undone, whatever happens."""

import subprocess
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import msgspec
import pandas as pd

from loadtests.clocks import wall_ahead_ns
from loadtests.errors import ExitCode, HarnessError
from loadtests.link.backends.backend import BackendName
from loadtests.link.backends.interface import open_interface
from loadtests.link.backends.links import Links
from loadtests.link.lab import Lab, open_lab
from loadtests.load.batches import cut_short
from loadtests.run import collect, linktable, server
from loadtests.run.attempts import MOST_DISTURBED, best, in_vain
from loadtests.run.capture import capturing
from loadtests.run.certificate import new_certificate
from loadtests.run.children import seconds_of, tail
from loadtests.run.directory import RunDirectory
from loadtests.run.disturbed import Disturbances
from loadtests.run.interrupt import Interrupt
from loadtests.run.live import LiveView
from loadtests.run.loading import load as load_of_trial
from loadtests.run.machine import MachineSampler
from loadtests.run.manifest import MachineFacts, TrialRecord
from loadtests.run.progress import Progress
from loadtests.run.stalls import TrialStalls
from loadtests.run.wire.watch import watching
from loadtests.scenario.matrix import Trial
from loadtests.stalls.host import Host
from loadtests.stalls.intervals import Interval
from loadtests.stalls.meter import StallMeter


class Rejected(Exception):
    """The trial is not worth going on with: the reason."""


@dataclass(frozen=True)
class Watch:
    """Who sees what the machine does besides; made before the laboratory, so that all of the machine is seen."""

    meter: StallMeter
    host: Host
    #: Who looks on (`--web`).
    view: LiveView | None = None


def run_trials(
    directory: RunDirectory, trials: list[Trial], backend: BackendName, watch: Watch, repeat: int
) -> ExitCode:
    """All trials in order; partial results are kept and marked. Returns PASSED when all have run.

    Args:
        repeat: how often a trial that the machine disturbed is run again, after all others, as long as it helps.

    Raises:
        HarnessError: the harness, the server or the link failed.
        KeyboardInterrupt: the user ended it.
    """
    interrupt = Interrupt()
    manifest = directory.manifest
    try:
        with Progress(trials) as progress:
            for trial in trials:  # which grows: what is to be repeated comes last
                if _settle(directory, trial, repeat, progress):
                    continue
                may_repeat = len(directory.rejected(trial)) < repeat and not in_vain(manifest.trials)
                _TrialRun(directory, trial, backend, progress, interrupt, watch, may_repeat=may_repeat).run()
                record = manifest.trials[-1]
                if record.state == "rejected":
                    if not _settle(directory, trial, repeat, progress):
                        progress.note(f"trial {trial.number}, {trial.name}: again later: {record.reason}")
                        trials.append(msgspec.structs.replace(trial, number=directory.new_number(trials)))
                elif record.state != "finished":
                    manifest.state = record.state
                    break
            else:
                manifest.state = "finished"
        return ExitCode.PASSED
    except KeyboardInterrupt:
        manifest.state = "interrupted"
        raise
    except HarnessError as error:
        manifest.state = f"failed: {error}"
        raise
    finally:
        directory.save()


def _settle(directory: RunDirectory, trial: Trial, repeat: int, progress: Progress) -> bool:
    """Let the best of the attempts that were rejected count, if another is not worth its time; whether it does."""
    rejected = directory.rejected(trial)
    kept = best(rejected)
    if kept is None or (len(rejected) <= repeat and not in_vain(directory.manifest.trials)):
        return False
    progress.note(f"trial {kept.number}, {kept.name}: counts, although {kept.reason}")
    directory.accept(kept)
    return True


class _TrialRun:
    """One trial from its links to its rows."""

    def __init__(
        self,
        directory: RunDirectory,
        trial: Trial,
        backend: BackendName,
        progress: Progress,
        interrupt: Interrupt,
        watch: Watch,
        *,
        may_repeat: bool,
    ) -> None:
        self._directory = directory
        self._trial = trial
        self._backend = backend
        self._progress = progress
        self._interrupt = interrupt
        self._witness = watch
        self._may_repeat = may_repeat
        self._options = directory.manifest.load_options
        self._raw = directory.raw(trial)
        #: When the emulator had which packet.
        self._carried = self._raw / "carried"
        self._stalls = TrialStalls(watch.meter)
        self._tables: dict[str, list[pd.DataFrame]] = {}
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
        record = self._record
        record.state = "failed"
        try:
            self._interrupt.check()
            self._measure()
            record.state = cut_short(self._raw) or "finished"
        except Rejected as rejection:
            record.state, record.reason = "rejected", str(rejection)
        except KeyboardInterrupt:
            record.state = "interrupted"
            raise
        finally:
            # Server and load have ended here, so that all they wrote is there.
            record.clock_step_ms = (wall_ahead_ns() - clocks_ns) / 1e6
            self._progress.end(self._trial, self._raw)
            self._finish()

    def _finish(self) -> None:
        """Records → rows, and what the machine did; a trial of which too much is disturbed is rejected, at first."""
        record, raw = self._record, self._raw
        record.start = collect.started(raw)
        record.processes = collect.processes(raw)
        is_local = "--master" not in self._options
        disturbances = Disturbances(
            self._trial.links,
            self._stalls.cores if is_local else (),
            self._stalls.emulator,
            collect.carried(self._carried),
        )
        paths = {address: path for path, address in record.addresses.items()}
        tables = collect.tables_of(raw, self._trial.number, self._trial.scenario.warmup, paths, disturbances)
        tables["stalls"] = self._stalls.rows(collect.start_ns_of(raw))
        for name, parts in self._tables.items():
            tables[name] = pd.concat([*([tables[name]] if name in tables else []), *parts])
        messages = tables["messages"]
        after_warmup = messages.loc[messages["warmup"] == 0, "disturbed"]
        share = float(after_warmup.mean()) if len(after_warmup) else 0.0
        record.machine = msgspec.structs.replace(
            record.machine, disturbed_share=share, is_certain=self._stalls.is_certain
        )
        if share > MOST_DISTURBED and record.state == "finished":
            record.state, record.reason = "rejected", f"{share:.0%} of its messages were disturbed"
        self._directory.finish(record, tables)

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
                self._add("link", linktable.changed(links, collect.start_ns_of(self._raw)))
                self._progress.say(self._trial, "measuring the link again")
                links.stop()
                links.drain()
                self._calibrate(links, "after")

    def _add(self, table: str, rows: pd.DataFrame) -> None:
        self._tables.setdefault(table, []).append(rows)

    def _open_links(self) -> AbstractContextManager[Links]:
        """The links of the trial: a laboratory of our own, or the way to a server elsewhere."""
        trial, interface = self._trial, self._directory.manifest.interface
        if interface is None:
            return open_lab(trial.links, backend=self._backend, seed=trial.seed)
        return open_interface(interface, *trial.scenario.server.address, trial.links["primary"])

    def _calibrate(self, links: Links, when: linktable.When) -> None:
        """Raises Rejected: the link was off while the machine did something else, and there is another attempt."""
        self._record.backend = links.backend

        def disturbances() -> list[Interval]:
            self._stalls.late = links.late()
            return [*self._stalls.cores, *self._stalls.emulator]

        rows = linktable.measured(links, when, disturbances)
        self._add("link", rows)
        off = rows[rows["within"].eq(False)]
        if len(off) and off["disturbed"].eq(True).all() and self._may_repeat:
            raise Rejected(f"the link was off {when} the load while the machine stalled")

    def _run_load(self, links: Links | None, running: ExitStack) -> None:
        """Server and load, from their start to the end of the load; both end when `running` is left."""
        trial, raw = self._trial, self._raw
        lab = links if isinstance(links, Lab) else None
        chat_server = certificate = None
        if lab:
            self._record.congestion_control = trial.scenario.congestion
            self._record.addresses = lab.addresses
            if self._directory.captures:
                head = f"trial {trial.number}, {trial.name}"
                running.enter_context(
                    capturing(lab, raw, list(trial.links), lambda lack: self._progress.note(f"{head}: {lack}"))
                )
            if self._directory.manifest.stamps == "wire":
                self._record.wire = running.enter_context(watching(lab, raw, server.PORT))
            if trial.scenario.tls:
                certificate = new_certificate(raw, lab.addresses.values())
            chat_server = running.enter_context(
                server.embedded_server(lab, trial.scenario.congestion, raw, certificate)
            )
        if links:
            links.record(self._carried)
            links.start()  # the load meets fresh randomness, however long calibration took
        authority = certificate and certificate.chain
        load = running.enter_context(
            load_of_trial(lab, trial, raw, server.PORT, self._options, authority, self._witness.view)
        )
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
        sampler = MachineSampler(pids, self._witness.host)
        begin_ns = time.monotonic_ns()
        try:
            for _ in seconds_of(load):
                self._interrupt.check()
                sampler.sample()
                self._progress.follow(self._trial, self._raw)
                if view := self._witness.view:
                    view.tell(
                        f"trial {self._trial.number}, {self._trial.name}",
                        self._tables.get("link", []),
                        links.changes() if links else [],
                        self._stalls.cores,
                    )
                if links:
                    links.check()
                if links and awaits_timeline and (began := collect.started(self._raw)):
                    links.start(began.monotonic_ns)
                    awaits_timeline = False
                if chat_server:
                    server.check(chat_server, self._raw)
        finally:
            self._add("machine", sampler.rows(collect.start_ns_of(self._raw)))
            self._record.machine = MachineFacts(
                stalled_share=self._stalls.share(begin_ns, time.monotonic_ns()),
                longest_stall_ms=self._stalls.longest_ms(begin_ns),
                steal_share=sampler.steal_share(),
                others_percent=sampler.others_percent(),
            )
            if links:
                links.record(None)
                self._stalls.late = links.late()
