"""Finds when something the user asked for in words is in the picture."""
