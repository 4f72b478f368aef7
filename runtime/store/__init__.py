"""Everything durable, as a protocol, and the pure facts that all stores share."""
