"""What of weights that are divided among processes is whole at a time: sizes of a model enter, bytes leave. An estimate."""

from __future__ import annotations

from orpo.engine.memory_trace import ModelSizes


def gathered_bytes(sizes: ModelSizes) -> int:
    """Embeddings and head, one layer that computes and the next that is fetched, and their gradients before they are added up."""
    outside = min(sizes.weight_bytes, 2 * 4 * sizes.vocabulary * sizes.hidden)
    layers = 2 * (sizes.weight_bytes - outside) // max(1, sizes.num_layers)
    # The trained share of what is gathered has gradients; a model has weights, so nothing divides by zero.
    return round((outside + layers) * (1 + sizes.trained_bytes / sizes.weight_bytes))
