"""Impaired links: profiles, the two backends that make them real, and their calibration."""
