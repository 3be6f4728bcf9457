"""Files, receipts, arrays and SQLite, written so that a crash loses nothing."""
