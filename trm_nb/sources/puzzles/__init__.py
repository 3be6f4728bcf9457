"""Sudokus and mazes, read or generated."""
