"""Region training methods side by side."""
