"""The methods as a library: one folder a job type, usable in a notebook with no service.

`spec.py` of a folder declares the job type (pydantic and the standard library only), `core.py` and
its siblings hold the numerics, `job.py` the glue that a worker or `LocalContext` runs.
"""
