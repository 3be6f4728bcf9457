"""Executed notebooks as offline HTML pages."""
