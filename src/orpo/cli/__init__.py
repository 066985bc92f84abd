"""The commands. Thin: they read flags and call the pipeline; whatever is slow to import is imported inside functions."""
