"""Why somebody waits: facts, rules, and the chain of reasons."""
