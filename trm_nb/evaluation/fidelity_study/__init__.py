"""One decoder reads what each code keeps of an image: the study of fidelity and of meaning."""
