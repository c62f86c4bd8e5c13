"""The `hanse` command: thin shells around the parts that do the work."""
