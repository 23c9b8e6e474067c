"""The way of one message, packet by packet: from a capture of a trial to a figure that explains a response time."""
