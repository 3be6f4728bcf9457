"""Capsules back to what they came from: pixels, and the text or the grid on them."""
