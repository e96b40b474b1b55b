"""Token memories of a stream: the clustering memory of Streaming DVC, and the alternatives it was compared with."""
