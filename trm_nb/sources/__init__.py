"""Files, folders and tables to items."""
