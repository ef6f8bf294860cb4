"""rank-distilled-dataset beside the official package, by engine and by number of workers."""
