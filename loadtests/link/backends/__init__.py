"""Ways to make a link: netem, emulator, an interface, none; one contract."""
