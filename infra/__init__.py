"""What every process needs and no method knows: settings, storage, logs, metrics, ids, keys, broker.

It imports nothing of ours.
"""
