"""What a link does, packet by packet; pure but for the reading of traces."""
