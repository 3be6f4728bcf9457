"""Image files to arrays, within limits of size and time."""
