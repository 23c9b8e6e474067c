"""The arrival of every line, from packets seen on the wire: a ring that sees them, and the join with the records."""
