"""Private network namespaces that die with their holder."""
