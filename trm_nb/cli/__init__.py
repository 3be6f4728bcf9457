"""The command line, `trm-nb`."""
