"""The interactive client, and the one for pipes."""
