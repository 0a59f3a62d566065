"""How the demo models are made, and the quick start; the core never imports them."""
