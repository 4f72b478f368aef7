"""The command line, a noun each."""
