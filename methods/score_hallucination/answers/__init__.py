"""Items with their answers: read from files, drawn from models, graded and judged."""
