"""Moving in: configurations and scripts of other tools enter, our settings leave, and what became of each of theirs."""
