"""A partition: mailboxes, activations and the commit in the making; read, run, commit."""
