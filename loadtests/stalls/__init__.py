"""When the machine did not let our processes run: measured, so that it is never taken for the network."""
