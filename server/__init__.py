"""The `datassay-server` command: starts, watches and stops the processes of the service.

It knows the other rooms by the names of their processes only.
"""
