"""The shared words: records, tokens, log-probs, sums. `records` and `tokens` are free of torch, `logps` and `loss` need it."""
