"""What the gateway does, free of HTTP types and of SQL."""
