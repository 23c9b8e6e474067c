"""Is a virtual run what its scenario and these programs make? Repeat it and compare the tables."""

import itertools
import tempfile
from pathlib import Path

from loadtests.clock.virtual import run_virtually
from loadtests.errors import HarnessError
from loadtests.run.directory import RunDirectory
from loadtests.run.manifest import Manifest
from loadtests.scenario.matrix import plan


def verify(run: Path, jobs: int) -> list[str]:
    """What differs when the run is repeated with these programs, a sentence each; empty if every row is equal.

    Raises HarnessError: the run was not made in virtual time, or cannot be repeated.
    """
    old = Manifest.read(run)
    if old.clock != "virtual":
        raise HarnessError(f"{run}: only a run in virtual time can be repeated to the byte; this one was in real time")
    with tempfile.TemporaryDirectory(prefix="chatlab-verify-") as folder:
        document = RunDirectory(run, old, captures=False).document
        new = RunDirectory.create(
            Path(folder), document, old.backend, None, old.load_options, captures=False, clock="virtual"
        )
        run_virtually(new, plan(document), old.backend, jobs)
        made_of = [name for name, digest in new.manifest.fingerprint.items() if old.fingerprint.get(name) != digest]
        found = [f"the {name} are others than those of {run}" for name in made_of]
        for table in sorted(old.digests.keys() | new.manifest.digests.keys()):
            found += difference(run / f"{table}.csv", new.path / f"{table}.csv")
        return found


def difference(old: Path, new: Path) -> list[str]:
    """The first row in which two tables differ, if they do."""
    if not (old.exists() and new.exists()):
        return [f"{old.name}: only {'the run' if old.exists() else 'the repetition'} has it"]
    with old.open() as before, new.open() as after:
        for line, (was, is_now) in enumerate(itertools.zip_longest(before, after, fillvalue="(no row)"), 1):
            if was != is_now:
                return [f"{old.name}, line {line}: was {was.strip()}; is {is_now.strip()}"]
    return []
