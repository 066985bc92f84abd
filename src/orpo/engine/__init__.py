"""The machine: tokenized examples enter, log-probabilities leave. It knows no objective. `plain.py` is the slow oracle."""
