"""Objects in video: found, followed, described, and asked for by place or by words."""
