"""Questions and answers about an image, with masks for what an answer says."""
