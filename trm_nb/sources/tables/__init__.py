"""Parquet, JSON lines and CSV to items, a row each."""
