"""What is said: one Struct for each message, its limits, and lines of JSON."""
