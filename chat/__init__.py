"""A real-time chat: nonblocking server and client library."""
