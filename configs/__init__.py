"""Ready graphs, by name."""
