"""What happened in a training, on its volume, so that an aggregator that died can be followed by another.

Why it exists: a ServerApp is run again from its top after a crash, and gets the same answers from the journal
that it got before; so it comes to the round that it was in, in the state that it was in, without a word to
any client. `entries` are what can be written, `segments` keep the bytes of arrays, `book` is the file,
`replay` finds the answer to each call. None of them knows clients, channels or Flower.
"""
