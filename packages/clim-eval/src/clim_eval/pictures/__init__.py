"""Figures: similarity maps, bars and trade-offs."""
