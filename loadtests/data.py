"""Where things are: scenarios, links and notebooks that belong to chatlab, and the results of whoever uses it."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """`scenarios`, `notebooks` or `results`: inside the package where it was installed, beside it in a clone."""
    installed = _PACKAGE / "shipped" / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder


SCENARIOS = shipped("scenarios")
LINKS = SCENARIOS / "links"
NOTEBOOKS = shipped("notebooks")
#: From where our packages are imported.
CODE = _PACKAGE.parent
LOCUSTFILE = _PACKAGE / "locustfile.py"
#: Where new runs go, unless `--results` says otherwise.
RESULTS = Path("results")


def results() -> Path:
    """Where runs are looked for: `$CHATLAB_RESULTS`, or the nearest folder `results` from the current one upwards."""
    if named := os.environ.get("CHATLAB_RESULTS"):
        return Path(named)
    here = Path.cwd()
    return next((place for folder in (here, *here.parents) if (place := folder / RESULTS).is_dir()), RESULTS)
