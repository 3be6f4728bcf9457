"""What is trained: each module here is one model's training, from data to checkpoint and metrics."""
