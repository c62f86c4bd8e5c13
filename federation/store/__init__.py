"""Where resources live, behind one port."""
