"""Readings in shards: in this process, as child jobs, or by Ray Data, with the same outcome."""
