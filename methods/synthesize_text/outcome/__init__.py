"""What is kept of the texts, and how it stands beside controls."""
