"""What a result is worth: intervals, paired tests and baselines that respect which samples belong to one item."""
