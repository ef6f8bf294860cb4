"""What tests and benchmarks share: tiny models, fake servers, a service of real processes."""
