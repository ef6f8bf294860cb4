"""The methods: one file each, and `dispatch`, which calls the one that a request names.

`problem` is what each gets and returns.
"""
