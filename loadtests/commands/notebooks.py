"""`chatlab notebooks`: JupyterLab on the notebooks, which read the newest run of `./results`."""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from chat.words import reason_of
from loadtests.data import NOTEBOOKS, results
from loadtests.errors import HarnessError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab notebooks`."""
    parser.description = (
        "Open the notebooks in JupyterLab, on the newest run in ./results. They are copied to FOLDER first, unless they"
        " are there; so what you change is yours."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("notebooks"), help="default: %(default)s")
    parser.add_argument(
        "jupyter", nargs="*", metavar="-- OPTION", help="options of JupyterLab, such as -- --no-browser"
    )


def main(arguments: argparse.Namespace) -> NoReturn:
    """Become JupyterLab; raises HarnessError: it is not installed, or the folder cannot be written."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise HarnessError("notebooks: JupyterLab is not installed: pip install 'chatlab[notebooks]'")
    folder: Path = arguments.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for notebook in NOTEBOOKS.glob("*.ipynb"):
            if not (folder / notebook.name).exists():
                shutil.copyfile(notebook, folder / notebook.name)
    except OSError as error:
        raise HarnessError(f"{error.filename}: cannot be written: {reason_of(error)}") from error
    command = [sys.executable, "-m", "jupyterlab", str(folder), *arguments.jupyter]
    if os.geteuid() == 0:  # which Jupyter refuses otherwise
        command.append("--allow-root")
    os.environ["CHATLAB_RESULTS"] = str(results().resolve())
    sys.stdout.flush()
    os.execv(sys.executable, command)
