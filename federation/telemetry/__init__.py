"""What processes say about themselves: log lines, metrics, and the names of both."""
