"""How well segments, moments and frame labels meet the truth."""
