"""Live sources: cameras and streams that stall, reconnect, drift and lie about time.

`LiveReader` keeps one source going for ever and tells frames, epochs and states. Decoding happens in a child process
that can be killed at any moment; nothing here imports torch.
"""
