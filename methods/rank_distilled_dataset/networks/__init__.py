"""The networks of the benchmark by their names, their losses and optimisers.

`names` needs no torch: specs check names with it.
"""
