"""What is trained for a comparison, and what its curves say: scores and leaderboards."""
