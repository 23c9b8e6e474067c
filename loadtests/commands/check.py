"""`chatlab check SCENARIO`: what would run."""

import argparse

from loadtests.commands.scenario import add_scenario, document_of
from loadtests.errors import ExitCode
from loadtests.scenario.matrix import plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab check`."""
    add_scenario(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the plan; raises HarnessError: the scenario is wrong."""
    document = document_of(arguments)
    trials = plan(document)
    for trial in trials:
        print(f"trial {trial.number}: {trial.name}")
        for path, profile in trial.links.items():
            print(f"  {path}: {profile}")
    load_s = sum(trial.scenario.duration_s for trial in trials)
    print(f"{document.name}: {len(trials)} trials, {load_s:g} s of load")
    return ExitCode.PASSED
