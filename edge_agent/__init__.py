"""The process at each edge: one outbound session to the hub, the owner's policy, and the clients."""
