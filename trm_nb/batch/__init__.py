"""Notebooks executed in order through papermill."""
