"""What travels between clients, actors and workers, what travels along, and its wire form."""
