"""Networks: the Tiny Recursive Model, the vision encoder and its decoder, and their checkpoints."""
