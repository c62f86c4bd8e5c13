"""Digits of scikit-learn, dealt out unevenly over the sites, and a small convolutional network."""
