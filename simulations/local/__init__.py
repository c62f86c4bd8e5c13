"""The engine of `hanse simulate`: a whole federation as processes on this machine."""
