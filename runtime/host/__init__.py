"""A host: the process that owns partitions, and what it looks after in them."""
