"""What people annotated as moments of videos, and features of such videos: the data that localizers learn from."""

FORMAT_NAMES = ("qvhighlights", "charades", "activitynet", "tacos", "coin", "activitynet1.3")
"""Names of the formats of annotation files; they stand here, where naming them loads nothing."""
