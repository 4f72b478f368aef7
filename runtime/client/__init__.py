"""The client of a hub: handles to what is in it, questions about it, verbs for many."""
