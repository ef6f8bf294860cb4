"""Ranks distilled data sets with shared baselines and honest intervals.

`data` reads real and distilled sets, `networks` builds what is trained, `training` trains it,
`protocol` says what to train and turns curves into leaderboards, `children` does the trainings as
jobs of their own. From outside only `spec`, `result`, `job`, `data` and `seeds` are imported.
"""
