"""The worker's numbers that others keep: models, tokens, GPU memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from methods.inference.counters import IN_FLIGHT, TOKENS


class ModelCollector(Collector):
    """Reads the counters when Prometheus asks."""

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        tokens = CounterMetricFamily(
            "datassay_tokens", "Tokens of model servers.", labels=["model", "kind"]
        )
        for (model, kind), count in list(TOKENS.items()):
            tokens.add_metric([model, kind], count)
        in_flight = GaugeMetricFamily(
            "datassay_backend_inflight", "Open requests to model servers.", labels=["model"]
        )
        for model, count in list(IN_FLIGHT.items()):
            in_flight.add_metric([model], count)
        memory = GaugeMetricFamily(
            "datassay_gpu_memory_bytes", "Memory of tensors on a GPU.", labels=["device"]
        )
        for device, size in _gpu_memory():
            memory.add_metric([device], size)
        return [tokens, in_flight, memory]


def _gpu_memory() -> list[tuple[str, int]]:
    torch = sys.modules.get("torch")
    # A look must not be what starts CUDA.
    if torch is None or not torch.cuda.is_initialized():
        return []
    devices = range(torch.cuda.device_count())
    return [(str(device), torch.cuda.memory_allocated(device)) for device in devices]
