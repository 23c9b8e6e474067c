"""The link laboratory: private network namespaces joined by links that are slow, lossy and measured."""
