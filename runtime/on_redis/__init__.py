"""The store in Redis or Valkey, one server or a Cluster: keys, scripts, connections."""
