"""Pre-training of the vision encoder: what it sees, what it is asked for, and the loop (see `trm_nb.training.pretrain`)."""
