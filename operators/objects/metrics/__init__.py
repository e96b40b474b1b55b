"""Scores of objects: boxes, tracks, their captions, and what is found by words."""
