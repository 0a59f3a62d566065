"""Training methods: each its options, and a model and a loss behind the `Task` protocol."""
