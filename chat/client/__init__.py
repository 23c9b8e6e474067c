"""The client library: sessions over one or two connections."""
