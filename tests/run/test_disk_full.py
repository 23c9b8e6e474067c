"""A disk that runs full under a run."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

SCENARIO = """
users: {BroadcastUser: 8}
messages: {rate: 50/s}
stages: [{users: 8, duration: 2s}]
warmup: 0s
"""


def test_a_run_on_a_full_disk_is_marked_and_kept(tmp_path: Path) -> None:
    """One line and exit code 2; `run.json` says what happened, and the records of the trial are still there."""
    (tmp_path / "s.yaml").write_text(SCENARIO)
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-m", "loadtests", "run", "s.yaml", "--backend", "none", "--results", "disk"]
    script = f"mount -t tmpfs -o size=160k tmpfs disk && {shlex.join(command)}; code=$?; cp -r disk/. kept; exit $code"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("no space left on device; what was recorded before is kept")
    (run,) = (tmp_path / "kept").iterdir()
    assert json.loads((run / "run.json").read_text())["state"] == "failed: no space left on device"
    assert any(file.stat().st_size for file in run.glob("trial-001/*"))
