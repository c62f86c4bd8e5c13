"""Pure decisions of one training: the round machine, and whether an update is acceptable."""
