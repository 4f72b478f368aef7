"""Behind lungfish.testing: the store in memory, durable time that jumps, a crash at every instant."""
