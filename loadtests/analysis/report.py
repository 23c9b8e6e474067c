"""A run directory → `report.html`: the notebook, executed on it."""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from loadtests.data import NOTEBOOKS
from loadtests.errors import HarnessError

NOTEBOOK = NOTEBOOKS / "01_response_time.ipynb"


def write_report(run_directory: Path, *, with_disturbed: bool = False) -> Path:
    """Execute the notebook on the run and write `report.html` into it; returns its path.

    Raises HarnessError: a cell failed.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        extra_arguments=["--log-level=40"],  # errors only: its warnings are about servers open to a network
    )
    try:
        told = {"CHATLAB_RUN": str(run_directory.resolve()), "CHATLAB_WITH_DISTURBED": "1" if with_disturbed else ""}
        client.execute(env=os.environ | told)
    except CellExecutionError as error:
        raise HarnessError(f"{NOTEBOOK.name} failed on {run_directory}: {error.ename}: {error.evalue}") from None
    exporter = HTMLExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": f"chatlab: {run_directory.name}"}})
    report = run_directory / "report.html"
    report.write_text(html, encoding="utf-8")
    return report
