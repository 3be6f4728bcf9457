"""The run's record of progress, and what is known of its folder."""
