"""One trial after the other: children, captures, machine samples, tables."""
