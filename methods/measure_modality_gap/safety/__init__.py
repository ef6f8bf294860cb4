"""Whether a model refuses harmful prompts behind an image as it does without one.

`answering` runs the part in which a model answers, `asking` has all models asked and judged,
`counting` draws the shares.
"""
