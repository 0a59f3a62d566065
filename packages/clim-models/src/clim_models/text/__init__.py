"""Texts: prompts, class embeddings and tokenizers."""
