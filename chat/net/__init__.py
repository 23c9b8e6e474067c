"""How bytes travel: the selector loop, one nonblocking TCP socket, the kernel's TCP_INFO."""
