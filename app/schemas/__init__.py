"""What goes over the wire, beside the specs and results of the job types.

`jobs` has jobs, files, keys and problems, `webhooks` has endpoints and messages.
"""
