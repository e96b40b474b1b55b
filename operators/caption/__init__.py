"""Caption decoders: text from the memory of a stream."""
