"""The server: who is there, what each follows, and the sockets."""
