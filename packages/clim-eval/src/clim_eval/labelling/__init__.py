"""Names for boxes that have none: pseudo labels."""
