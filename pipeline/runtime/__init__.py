"""The runners: one process with threads, or Ray actors; the same graph, the same log."""
