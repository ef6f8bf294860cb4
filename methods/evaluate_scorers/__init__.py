"""Which scorer finds the hallucinations of labelled items best, with intervals and tests."""
