"""What the training methods minimise."""
