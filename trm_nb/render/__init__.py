"""Items to 224x224 images, and back."""
