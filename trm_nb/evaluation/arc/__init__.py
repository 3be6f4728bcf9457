"""The published ARC protocol: predictions for many views of a task, taken back, ranked by votes, and scored."""
