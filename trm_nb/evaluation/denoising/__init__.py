"""What denoising is worth downstream: labels and characters that are recognised from noisy images."""
