"""`make chaos`: whole federations that are injured at a place or an instant that a seed decides.

Why it exists: that nothing is lost must be true at every step, and a test of each step alone meets neither
two faults at once nor one where nobody thought of it. Each run is a small training whose model tells whether
anything was lost or done twice; it ends with the model of an undisturbed run, or with a documented reason.
A seed repeats the faults of its run, and where they strike as far as that is a named place.
"""
