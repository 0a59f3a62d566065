"""Demo data: drawings with names, and scenes composed of them."""
