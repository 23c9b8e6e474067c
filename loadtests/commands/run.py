"""`chatlab run SCENARIO`: every trial, the tables, the report, the verdict."""

import argparse
import contextlib
import errno
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from chat.arguments import at_least_1, port
from chat.words import count, reason_of
from loadtests.commands.message import message_of
from loadtests.commands.output import check_writable
from loadtests.commands.scenario import add_scenario, document_of
from loadtests.data import RESULTS
from loadtests.errors import ExitCode, HarnessError
from loadtests.link.lab import BACKENDS
from loadtests.link.sandbox.laboratory import run_in_lab
from loadtests.run.manifest import Manifest, Stamps
from loadtests.scenario.matrix import Trial, plan
from loadtests.scenario.scenario import CLOCKS

if TYPE_CHECKING:
    from loadtests.run.directory import RunDirectory
    from loadtests.run.live import LiveView

#: The disk's fault, not ours.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab run`."""
    add_scenario(parser, nargs="?")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run that was cut short")
    parser.add_argument("--backend", choices=["auto", *BACKENDS], help="what impairs the links")
    parser.add_argument("--clock", choices=CLOCKS, help="virtual: on a clock that no busy machine can disturb")
    parser.add_argument("--trial", type=at_least_1, metavar="N", help="this trial alone, the N-th of the run")
    parser.add_argument(
        "--message", type=message_of, metavar="USER:ID", help="capture, and explain this message packet by packet"
    )
    parser.add_argument("--jobs", type=at_least_1, metavar="N", help="virtual trials at once (one a core)")
    parser.add_argument("--interface", metavar="NAME", help="put the link on this interface, which leads to the server")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="FOLDER", help="where run directories go (%(default)s)"
    )
    parser.add_argument("--junit", type=Path, metavar="FILE.xml", help="write the verdict as JUnit XML too")
    parser.add_argument("--no-report", action="store_true", help="leave the report to `chatlab report RUN`")
    parser.add_argument("--capture", action="store_true", help="keep a packet capture of each trial (needs tshark)")
    parser.add_argument(
        "--stamps",
        choices=get_args(Stamps),
        help="whose time each row has at best: that of its packet (wire, the default), or of its read (kernel)",
    )
    parser.add_argument(
        "--repeat",
        type=_at_least_0,
        metavar="N",
        help="repeat a disturbed trial up to N times, as long as it helps (the scenario's `repeat`, which is 2)",
    )
    parser.add_argument("--web", action="store_true", help="show the run in Locust's web UI while it goes on")
    parser.add_argument("--web-host", metavar="ADDRESS", help="from where it can be seen (127.0.0.1: this machine)")
    parser.add_argument("--web-port", type=port, metavar="PORT", help="(8089; 0: any that is free)")
    _add_processes(parser)


def _add_processes(parser: argparse.ArgumentParser) -> None:
    """Locust's own options, by their own names."""
    group = parser.add_argument_group("many processes, many machines", "the names and the meaning are Locust's")
    group.add_argument("--processes", type=at_least_1, metavar="N", help="load processes on this machine")
    group.add_argument("--master", action="store_true", help="let workers, perhaps on other machines, make the load")
    group.add_argument("--expect-workers", type=at_least_1, metavar="N", help="workers to wait for (1)")
    group.add_argument("--master-bind-host", metavar="ADDRESS", help="where to listen for workers (everywhere)")
    group.add_argument("--master-bind-port", type=port, metavar="PORT", help="(5557)")
    group.add_argument("--worker", action="store_true", help="make load for one master after the other")
    group.add_argument("--master-host", metavar="HOST", help="where the master is (127.0.0.1)")
    group.add_argument("--master-port", type=port, metavar="PORT", help="(5557)")


def _at_least_0(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0 up, got {text!r}")
    return int(text)


#: Option → the one that must be there too.
_NEEDS = {
    "expect_workers": "master",
    "master_bind_host": "master",
    "master_bind_port": "master",
    "master_host": "worker",
    "master_port": "worker",
}


def _locust_options(arguments: argparse.Namespace) -> list[str]:
    """What Locust is told about processes; raises HarnessError: the options contradict each other."""
    if arguments.master and (arguments.worker or arguments.processes):
        raise HarnessError("run: --master makes no load itself: leave out --worker and --processes, or --master")
    for name in ("web_host", "web_port"):
        if getattr(arguments, name) is not None and not arguments.web:
            raise HarnessError(f"run: {_option(name)} goes with --web")
    if arguments.web and (arguments.worker or arguments.clock == "virtual"):
        raise HarnessError("run --web: there is nothing to see of a worker, or in virtual time")
    given = [name for name in _NEEDS if getattr(arguments, name) is not None]
    for name in given:
        if not getattr(arguments, _NEEDS[name]):
            raise HarnessError(f"run: {_option(name)} goes with --{_NEEDS[name]}")
    options = ["--master"] if arguments.master else []
    if arguments.processes and not arguments.worker:
        given.append("processes")
    return options + [word for name in given for word in (_option(name), str(getattr(arguments, name)))]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def main(arguments: argparse.Namespace) -> int:
    """Run all trials and judge them; raises HarnessError: bad input, or the harness failed."""
    # Imported when needed: pandas takes a second, which help, completion and errors need not wait for.
    from loadtests.run.live import looked_at
    from loadtests.run.loading import work

    options = _locust_options(arguments)
    if arguments.worker:
        if arguments.scenario or arguments.resume:
            raise HarnessError("run --worker: leave out the scenario: the master sends it")
        work(options, arguments.processes or 1, arguments.results)
    if arguments.junit:
        check_writable(arguments.junit)
    if not arguments.web:
        return _run(arguments, options, None)
    with looked_at(
        arguments.web_host or "127.0.0.1", 8089 if arguments.web_port is None else arguments.web_port
    ) as view:
        return _run(arguments, options, view)


def _run(arguments: argparse.Namespace, options: list[str], view: "LiveView | None") -> int:
    """The run itself; `view`: where it is looked at."""
    from loadtests.clock.virtual import run_virtually
    from loadtests.run.trials import Watch, run_trials
    from loadtests.stalls.host import Host
    from loadtests.stalls.meter import StallMeter

    directory, trials = _prepared(arguments, options)
    path = _seen_from_here(directory.path)
    repeat = max((trial.scenario.repeat for trial in trials), default=0)
    if arguments.repeat is not None:
        repeat = arguments.repeat

    def trials_inside() -> int:
        try:
            return run_trials(directory, trials, directory.manifest.backend, watch, repeat)
        except OSError as error:
            if error.errno not in _DISK:
                raise
            with contextlib.suppress(OSError):  # of a disk that is gone nothing can be said on it
                directory.fail(reason_of(error))
            raise HarnessError(f"{path}: {reason_of(error)}; what was recorded before is kept") from error

    needs_lab = any(trial.links and trial.scenario.server.is_embedded for trial in trials)
    code: int = ExitCode.ERROR
    try:
        if not trials:
            print("nothing is left to run")
            directory.manifest.state = "finished"
            directory.save()
            code = ExitCode.PASSED
        elif directory.manifest.clock == "virtual":
            jobs = arguments.jobs or os.cpu_count() or 1
            code = run_virtually(directory, trials, directory.manifest.backend, jobs)
        else:
            with StallMeter() as meter:  # outside of the laboratory, from where all of the machine is seen
                watch = Watch(meter, Host(), view)
                code = run_in_lab(trials_inside) if needs_lab else trials_inside()
    finally:
        directory.close()
        print(f"results: {path}")
        if code:
            print(f"to go on with this run: chatlab run --resume {shlex.quote(str(path))}")
    if code:
        return code
    if arguments.message:
        from loadtests.journey.explain import explain

        print(explain(path, directory.manifest.trials[-1].number, *arguments.message))
    from loadtests.commands.report import finish

    return finish(path, arguments.junit, with_report=not arguments.no_report)


def _prepared(arguments: argparse.Namespace, options: list[str]) -> "tuple[RunDirectory, list[Trial]]":
    """The run directory, and the trials that are to be run."""
    from loadtests.run.capture import check_tool
    from loadtests.run.directory import RunDirectory, hold

    if (arguments.resume is None) == (arguments.scenario is None):
        raise HarnessError("run: give either a SCENARIO or --resume RUN")
    if arguments.message and not (arguments.trial or arguments.resume):
        raise HarnessError("run --message: name its trial too: --trial N")
    try:
        if arguments.resume:
            _take_over(arguments, options)
        arguments.capture |= bool(arguments.message)
        if arguments.capture:
            check_tool()
        if arguments.resume:
            hold(arguments.resume)
            directory = RunDirectory.reopen(arguments.resume.absolute(), captures=arguments.capture)
            _check_jobs(arguments.jobs, directory.manifest.clock)
            wanted = [trial for trial in plan(directory.document) if arguments.trial in (None, trial.number)]
            return directory, directory.unfinished(wanted)
        document = document_of(arguments)
        if arguments.clock:
            document = document.replaced("clock", arguments.clock, f"--clock {arguments.clock}")
        trials = plan(document)
        private = any(trial.scenario.tls for trial in trials)  # of all, so that one alone has the stamps it has there
        if arguments.trial:
            trials = [trial for trial in trials if trial.number == arguments.trial]
            if not trials:
                raise HarnessError(
                    f"run --trial {arguments.trial}: the scenario has {count(len(plan(document)), 'trial')}"
                )
        _check_interface(trials, arguments.interface)
        _check_clock(trials, options)
        _check_jobs(arguments.jobs, trials[0].scenario.clock)
        if private and (arguments.stamps == "wire" or arguments.message):
            option = "--message" if arguments.message else "--stamps wire"
            raise HarnessError(f"run {option}: the packets of `tls: true` cannot be read")
        if arguments.master and any(trial.links for trial in trials):
            raise HarnessError(
                "run --master: workers elsewhere cannot be behind a link here; give `server: HOST:PORT`, and no link"
            )
        directory = RunDirectory.create(
            arguments.results.absolute(),
            document,
            arguments.backend or "auto",
            arguments.interface,
            options,
            captures=arguments.capture,
            stamps=arguments.stamps or ("kernel" if private else "wire"),
            clock=trials[0].scenario.clock,
            options=_again(arguments, options),
        )
        hold(directory.path)
    except OSError as error:
        place = error.filename or arguments.resume or arguments.results
        raise HarnessError(f"{place}: cannot be written: {reason_of(error)}") from error
    return directory, trials


def _take_over(arguments: argparse.Namespace, locust_options: list[str]) -> None:
    """Go on with the options that the run was made with; raises HarnessError: some are given that it has already."""
    given = [_option(name) for name in ("backend", "clock", "trial", "interface", "stamps") if getattr(arguments, name)]
    given += ["--set"] if arguments.settings else []
    given += ["--results"] if arguments.results != RESULTS else []
    given += [word for word in locust_options if word.startswith("--")]
    if given:
        raise HarnessError(f"run --resume: leave out {', '.join(given)}: the run has its own")
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_arguments(parser)
    try:
        made_with, _ = parser.parse_known_args(Manifest.read(arguments.resume).options)
    except argparse.ArgumentError as error:
        raise HarnessError(f"{arguments.resume / 'run.json'}: options: {error}") from None
    arguments.trial = made_with.trial
    arguments.capture |= made_with.capture
    if arguments.repeat is None:
        arguments.repeat = made_with.repeat


def _again(arguments: argparse.Namespace, locust_options: list[str]) -> list[str]:
    """The options that make the same run again; where results go, and what is shown of them, is no part of it."""
    values: dict[str, object] = {
        "--backend": arguments.backend or "auto",
        "--clock": arguments.clock,
        "--trial": arguments.trial,
        "--interface": arguments.interface,
        "--stamps": arguments.stamps,
        "--repeat": arguments.repeat,
    }
    given = [word for setting in arguments.settings for word in ("--set", setting)]
    given += [word for option, value in values.items() if value is not None for word in (option, str(value))]
    return given + (["--capture"] if arguments.capture else []) + locust_options


def _check_clock(trials: list[Trial], options: list[str]) -> None:
    """All trials of a run have one clock, and a virtual one is for what runs on this machine alone."""
    clocks = {trial.scenario.clock for trial in trials}
    if len(clocks) > 1:
        raise HarnessError("clock: one run has one clock; leave it out of `vary`, and compare two runs")
    if clocks == {"virtual"}:
        if any(not trial.scenario.server.is_embedded for trial in trials) or "--master" in options:
            raise HarnessError("clock: virtual: server and load must run here: leave out `server` and --master")
        if any(trial.scenario.clock == "virtual" and not trial.links for trial in trials):
            raise HarnessError("clock: virtual: give a link")


def _check_jobs(jobs: int | None, clock: str) -> None:
    if jobs is not None and clock != "virtual":
        raise HarnessError("run --jobs: in real time one trial runs after the other; it goes with --clock virtual")


def _seen_from_here(path: Path) -> Path:
    """The path as somebody in the current folder would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _check_interface(trials: list[Trial], interface: str | None) -> None:
    """An interface is impaired only if the user names it, and named only if it is impaired."""
    elsewhere = {bool(trial.links) and not trial.scenario.server.is_embedded for trial in trials}
    if interface is None and True in elsewhere:
        raise HarnessError("link: the server is elsewhere, so name the interface that leads to it: --interface NAME")
    if interface is not None and elsewhere != {True}:
        raise HarnessError("--interface: only for a scenario with both a link and server: HOST:PORT")
