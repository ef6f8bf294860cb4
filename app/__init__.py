"""The gateway: HTTP in, HTTP out. It holds no state and no numerics."""
