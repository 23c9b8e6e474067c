"""Does virtual time work here? A short trial over 300 ms each way, run twice: what it measures, and is it equal?"""

import csv
import tempfile
from pathlib import Path

from loadtests.clock.verify import verify
from loadtests.clock.virtual import run_virtually
from loadtests.config.yamlfile import Document
from loadtests.errors import HarnessError
from loadtests.run.directory import RunDirectory
from loadtests.scenario.matrix import plan

_SCENARIO = """
clock: virtual
link: {rtt: 600ms}
users: {BroadcastUser: 2}
stages: [{users: 2, spawn_rate: 10/s, duration: 4s}]
"""


def check() -> str:
    """A sentence with what was measured; raises HarnessError: it does not work, or two runs differ."""
    document = Document.parse(_SCENARIO, "clock-check")
    with tempfile.TemporaryDirectory(prefix="chatlab-clock-check-") as folder:
        run = RunDirectory.create(Path(folder), document, "netem", None, [], captures=False, clock="virtual")
        run_virtually(run, plan(document), "netem", jobs=1)
        differences = verify(run.path, jobs=1)
        if differences:
            raise HarnessError(f"two virtual runs of the same scenario differ: {differences[0]}")
        with (run.path / "link.csv").open() as table:
            rtt_ms = [row["measured"] for row in csv.DictReader(table) if row["metric"] == "rtt_ms"]
        return (
            f"virtual time works: a round trip of 600 ms was measured as {float(rtt_ms[0]):.3f} ms, two runs are equal"
        )
