"""Probes, and what a link really does beside what was asked."""
