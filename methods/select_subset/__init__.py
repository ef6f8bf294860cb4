"""Chooses the part of a training set that is worth training on.

`schema` is the request, `data` reads rows and features, `algorithms` choose, `kmeans` clusters,
`out_of_core` does the same for files beyond memory, `proxy` reads a model. From outside only
`spec`, `result` and `job` are imported.
"""
