"""The stages of a run, and the only place that wires them."""
