"""How a program gets to a hub: connects, starts one on Ray, runs one in its own process, feeds it."""
