"""score-responses: refusals, over-refusals and right answers of responses that are there."""
