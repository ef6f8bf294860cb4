"""How well a score finds hallucinations: ranking metrics, selective prediction, drift."""
