"""How alike two answers are: words, NLI, embeddings; and which answers mean the same."""
