"""From a score to a probability: the maps, and the calibrator that a job hands out.

`calibrator` needs no numerics at import: specs hold calibrators.
"""
