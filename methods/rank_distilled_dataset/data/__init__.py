"""Real data sets in their published formats, candidates, splits, whitening, augmentation.

`distill_dataset` imports from here too.
"""
