"""The service: latency, throughput, guarantees, footprint, long runs."""
