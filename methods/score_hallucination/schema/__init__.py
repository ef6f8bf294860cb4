"""The request of score-hallucination and of its labelled sisters. No numerics: specs import it."""
