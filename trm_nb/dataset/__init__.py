"""A finished run's capsules, for training."""
