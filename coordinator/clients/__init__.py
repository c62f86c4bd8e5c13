"""The hub's clients: what keeps state outside this process, each behind one small module."""
