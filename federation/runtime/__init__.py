"""Where workloads run: one port, and local processes behind it."""
