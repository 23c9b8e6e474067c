"""How a command is told its scenario."""

import argparse

from loadtests.config.yamlfile import Document
from loadtests.errors import HarnessError
from loadtests.scenario.scenario import read_document


def add_scenario(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """The arguments SCENARIO and `--set`."""
    parser.add_argument(
        "scenario", metavar="SCENARIO", nargs=nargs, help="a file, or the name of one that comes with us"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, as in messages.rate=5/s",
    )


def document_of(arguments: argparse.Namespace) -> Document:
    """The scenario's document with the overrides of the command line; raises HarnessError: one of them is wrong."""
    document = read_document(arguments.scenario)
    for setting in arguments.settings:
        key, equals, value = setting.partition("=")
        origin = f"--set {setting}"
        if not key or not equals or not value.strip():
            raise HarnessError(f"{origin}: expected KEY=VALUE, as in messages.rate=5/s")
        document = document.replaced(key, Document.parse(value, origin).data, origin)
    for setting in arguments.settings:
        key, vary = setting.partition("=")[0], document.data.get("vary")
        for varied in vary if isinstance(vary, dict) else ():
            if f"{key}.".startswith(f"{varied}."):
                raise HarnessError(f"--set {setting}: no variant would have it, since the scenario varies {varied}")
    return document
