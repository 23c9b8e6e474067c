"""The command `chatlab`: run, check, link, report."""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from loadtests.config.yamlfile import Document
from loadtests.errors import ExitCode, HarnessError
from loadtests.link import command as link_command
from loadtests.link import tryout as try_command
from loadtests.link.lab import BACKENDS
from loadtests.scenario.matrix import Trial, plan
from loadtests.scenario.scenario import read_document

RESULTS = Path(__file__).parent.parent / "results"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code (see `loadtests.errors.ExitCode`)."""
    arguments = _parser().parse_args(argv)
    action: Callable[[argparse.Namespace], int] = arguments.action
    try:
        return action(arguments)
    except HarnessError as error:
        print(f"chatlab: {error}", file=sys.stderr)
        return ExitCode.ERROR
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chatlab",
        description="A chat whose network you can break on purpose, and a harness that tells what that cost.",
        epilog="Exit codes: 0 passed, 1 threshold missed, 2 usage or harness error, 3 not trustworthy.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a scenario, write its results and its report")
    _add_scenario(run, nargs="?")
    run.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run that was cut short")
    run.add_argument("--backend", choices=["auto", *BACKENDS], default="auto", help="what impairs the links")
    run.add_argument("--interface", metavar="NAME", help="put the link on this interface, which leads to the server")
    run.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where run directories go")
    run.add_argument("--junit", type=Path, metavar="FILE.xml", help="write the verdict as JUnit XML too")
    run.add_argument("--capture", action="store_true", help="keep a packet capture of each trial (needs tshark)")
    _add_processes(run)
    run.set_defaults(action=_run)

    check = commands.add_parser("check", help="say what a scenario would run, and start nothing")
    _add_scenario(check)
    check.set_defaults(action=_check)

    link = commands.add_parser("link", help="run any command behind an impaired link")
    link_command.add_arguments(link)
    link.set_defaults(action=link_command.main)

    tryout = commands.add_parser("try", help="chat behind a link, in this terminal, with some robots")
    try_command.add_arguments(tryout)
    tryout.set_defaults(action=try_command.main)

    compare = commands.add_parser("compare", help="compare two runs, or two variants of one, trial by trial")
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one run directory, or two")
    compare.add_argument("--by", metavar="KEY", help="of one run: the varied key whose values are compared")
    compare.set_defaults(action=_compare)

    profiles = commands.add_parser("profiles", help="list the links in scenarios/links/")
    profiles.set_defaults(action=_profiles)

    report = commands.add_parser("report", help="write report.html and summary.csv of a run anew")
    report.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    report.set_defaults(action=_report)
    return parser


def _add_scenario(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument("scenario", metavar="SCENARIO", nargs=nargs, help="a file, or a name in scenarios/")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, as in messages.rate=5/s",
    )


def _add_processes(parser: argparse.ArgumentParser) -> None:
    """Locust's own options, by their own names."""
    group = parser.add_argument_group("many processes, many machines", "the names and the meaning are Locust's")
    group.add_argument("--processes", type=_at_least_1, metavar="N", help="load processes on this machine")
    group.add_argument("--master", action="store_true", help="let workers, perhaps on other machines, make the load")
    group.add_argument("--expect-workers", type=_at_least_1, metavar="N", help="workers to wait for (1)")
    group.add_argument("--master-bind-host", metavar="ADDRESS", help="where to listen for workers (everywhere)")
    group.add_argument("--master-bind-port", metavar="PORT", help="(5557)")
    group.add_argument("--worker", action="store_true", help="make load for one master after the other")
    group.add_argument("--master-host", metavar="HOST", help="where the master is (127.0.0.1)")
    group.add_argument("--master-port", metavar="PORT", help="(5557)")


def _at_least_1(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, got {text!r}")
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


def _document(arguments: argparse.Namespace) -> Document:
    """The scenario's document with the overrides of the command line."""
    document = read_document(arguments.scenario)
    for setting in arguments.settings:
        key, equals, value = setting.partition("=")
        origin = f"--set {setting}"
        if not key or not equals:
            raise HarnessError(f"{origin}: expected KEY=VALUE, as in messages.rate=5/s")
        document = document.replaced(key, Document.parse(value, origin).data, origin)
    return document


def _run(arguments: argparse.Namespace) -> int:
    # Imported here, since pandas takes a second to load, which `check` and `link` need not wait for.
    from loadtests.link.sandbox.laboratory import run_in_lab
    from loadtests.run.capture import check_tool
    from loadtests.run.loading import work
    from loadtests.run.trials import RunDirectory, run_trials

    options = _locust_options(arguments)
    if arguments.worker:
        if arguments.scenario or arguments.resume:
            raise HarnessError("run --worker: leave out the scenario: the master sends it")
        work(options, arguments.processes or 1, arguments.results)
    if (arguments.resume is None) == (arguments.scenario is None):
        raise HarnessError("run: say either a SCENARIO or --resume RUN")
    if arguments.capture:
        check_tool()
    if arguments.resume and options:
        raise HarnessError("run --resume: leave out the options for processes: the run has its own")
    if arguments.resume:
        directory = RunDirectory.reopen(arguments.resume, captures=arguments.capture)
        trials = directory.unfinished(plan(directory.document))
    else:
        document = _document(arguments)
        trials = plan(document)
        _check_interface(trials, arguments.interface)
        if arguments.master and any(trial.links for trial in trials):
            raise HarnessError(
                "run --master: workers elsewhere cannot be behind a link here; say `server: HOST:PORT`, and no link"
            )
        directory = RunDirectory.create(
            arguments.results, document, arguments.backend, arguments.interface, options, captures=arguments.capture
        )

    def trials_inside() -> int:
        return run_trials(directory, trials, directory.info["backend"])

    needs_lab = any(trial.links and trial.scenario.server.is_embedded for trial in trials)
    try:
        code = run_in_lab(trials_inside) if needs_lab else trials_inside()
    finally:
        print(f"results: {directory.path}")
    return code or _finish(directory.path, arguments.junit)


def _check_interface(trials: list[Trial], interface: str | None) -> None:
    """An interface is impaired only if the user names it, and named only if it is impaired."""
    elsewhere = {bool(trial.links) and not trial.scenario.server.is_embedded for trial in trials}
    if interface is None and True in elsewhere:
        raise HarnessError("link: the server is elsewhere, so say which interface leads to it: --interface NAME")
    if interface is not None and elsewhere != {True}:
        raise HarnessError("--interface: only for a scenario with both a link and server: HOST:PORT")


def _check(arguments: argparse.Namespace) -> int:
    document = _document(arguments)
    trials = plan(document)
    for trial in trials:
        print(f"trial {trial.number}: {trial.name}")
        for path, profile in trial.links.items():
            print(f"  {path}: {profile}")
    load_s = sum(trial.scenario.duration_s for trial in trials)
    print(f"{document.name}: {len(trials)} trials, {load_s:g} s of load")
    return ExitCode.PASSED


def _profiles(arguments: argparse.Namespace) -> int:
    print(link_command.profiles())
    return ExitCode.PASSED


def _report(arguments: argparse.Namespace) -> int:
    return _finish(arguments.run)


def _compare(arguments: argparse.Namespace) -> int:
    from loadtests.analysis.compare import compare_runs, compare_within
    from loadtests.analysis.read import open_run

    try:
        runs = [open_run(path) for path in arguments.runs]
        if len(runs) == 1 and arguments.by:
            table = compare_within(runs[0], arguments.by)
        elif len(runs) == 2 and not arguments.by:
            table = compare_runs(*runs)
        else:
            raise HarnessError("compare: say two runs, or one run and --by KEY")
    except (FileNotFoundError, ValueError) as error:
        raise HarnessError(str(error)) from None
    print(table.to_string(index=False, float_format="%.3g"))
    return ExitCode.PASSED


def _finish(run_directory: Path, junit: Path | None = None) -> int:
    """Summary, report and verdict."""
    from loadtests.analysis.read import open_run
    from loadtests.analysis.report import write_report
    from loadtests.analysis.stats import presentable, summarise
    from loadtests.analysis.verdict import judge, write_junit

    try:
        run = open_run(run_directory)
    except FileNotFoundError as error:
        raise HarnessError(str(error)) from None
    summary = summarise(run)
    summary.to_csv(run.path / "summary.csv", index=False)
    shown = presentable(summary).drop(columns=[key for key in run.conditions if key != "variant"])
    print(shown.to_string(index=False, float_format="%.1f"))
    print(f"report:  {write_report(run.path)}")
    verdict = judge(run)
    if str(verdict):
        print(verdict)
    if junit:
        write_junit(verdict, run.path.name, junit)
    return verdict.exit_code
