"""`hanse simulate --on bare|kind`: the same federation as pods on real clusters of this machine."""
