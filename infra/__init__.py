"""What every process needs and no method knows. It imports nothing of ours.

Settings, storage, logs, metrics, ids, API keys, webhook secrets, the broker.
"""
