"""What people annotated as moments of videos, and features of such videos: the data that localizers learn from."""
