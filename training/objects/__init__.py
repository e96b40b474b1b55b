"""Training of what finds, follows and describes objects."""
