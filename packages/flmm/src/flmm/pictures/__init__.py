"""Pictures of masks and of attention."""
