"""YAML with line numbers, and values with units."""
