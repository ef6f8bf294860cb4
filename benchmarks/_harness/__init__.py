"""What the benchmarks share: fair timing, a service of real processes, bare baselines."""
