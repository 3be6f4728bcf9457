"""Studies of what the images and the capsules hold; intervals and verdicts are in training/verdicts.py."""
