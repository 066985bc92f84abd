"""Offline HTML pages of a run, a comparison, or several runs, and a run's model card: what was recorded enters. No torch, no network."""
