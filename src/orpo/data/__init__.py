"""From a path to tokenized pairs: rows, formats, chat templates, limits, checks, the built-in world."""
