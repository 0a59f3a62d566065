"""Demonstrations and comparisons that use the core; the core never imports them."""
