"""Checkpoints of reference implementations as folders of ours; each family says how its arrays and options map."""
