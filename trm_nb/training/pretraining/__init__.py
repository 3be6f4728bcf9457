"""Pre-training of the vision encoder: what it sees, what it is asked for, and the loop (`trm_nb.training.pretrain`)."""
