"""plan-augmentation: which examples a network does not learn early, and what augmenting them does.

`planning` splits and counts and imports no torch; `training` trains classifiers, `making` makes
images, `outcome` says what came of it.
"""
