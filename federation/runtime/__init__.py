"""Where workloads run: one port, and local processes behind it; and what every process of ours shares."""
