"""Where events and packets go: files to begin with."""
