"""The data model that gateway and worker share: settings, tables, state transitions, repositories.

No machine-learning models live here.
"""
