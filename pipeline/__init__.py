"""How a graph runs: its declaration, the runners, the sinks and the command line."""
