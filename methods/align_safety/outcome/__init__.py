"""What trained models did: responses, choice, cautions, files."""
