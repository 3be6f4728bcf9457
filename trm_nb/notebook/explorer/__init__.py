"""The explorer of a run, and the page that chooses data and starts one."""
