"""Training of the heads: options, data, task and recipes."""
