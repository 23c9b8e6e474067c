"""YAML → typed scenario, its trials, schedule and thresholds."""
