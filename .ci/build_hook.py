"""What a wheel holds besides the packages: the folders that stand beside them in a clone, and which commit it is."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: `loadtests/data.py` finds them at either place.
SHIPPED = ("scenarios", "notebooks", "results/README.md", "results/reference")
#: `--version` says it.
REVISION = "chat/revision.txt"


class Hook(BuildHookInterface[Any]):
    """Adds these to wheels, and the commit to sdists too; an editable install reads the clone itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel or an sdist is built."""
        if version == "editable":
            return
        included, root = build_data["force_include"], Path(self.root)
        if self.target_name == "wheel":
            included.update(
                {str(root / each): f"loadtests/shipped/{each}" for each in SHIPPED if (root / each).exists()}
            )
        if not (root / REVISION).exists() and (revision := _described(root)):
            self._folder = tempfile.TemporaryDirectory()
            file = Path(self._folder.name) / "revision.txt"
            file.write_text(revision)
            included[str(file)] = REVISION

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when it is built."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _described(root: Path) -> str:
    """Git's name for the commit; nothing if this is no clone, or there is no git."""
    try:
        command = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
