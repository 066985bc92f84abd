"""orpo."""
