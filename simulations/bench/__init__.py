"""`python -m simulations.bench`: what Hanse costs, beside stock Flower and the bare channel."""
