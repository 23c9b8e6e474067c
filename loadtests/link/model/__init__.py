"""What a link does, packet by packet; pure but for traces."""
