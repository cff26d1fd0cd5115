"""Online serving: a saved artifact becomes an entry of a Triton model repository."""
