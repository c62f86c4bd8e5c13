"""A Flower app whose model depends on each call, and on what each client remembers of the ones before."""
