"""What `orpo compare` does: the same data, budget and seeds through several pipelines; a config enters, compare.json and a page leave."""
