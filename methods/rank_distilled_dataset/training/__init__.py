"""How a network is trained: one session, and engines that run many side by side.

`engines.train_all` is the way in.
"""
