"""Recipes of the embedded models, their features and figures, and the generator of videos with known truth."""
