"""What a trained model does: preference accuracy on held-out pairs, and replies to held-out prompts."""
