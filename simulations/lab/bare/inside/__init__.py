"""Programs of the lab that run as processes of their own, from the standard library alone, by copy."""
