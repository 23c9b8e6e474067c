"""From a run directory to tidy frames, numbers and figures."""
