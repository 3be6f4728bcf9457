"""A trained model used on new content."""
