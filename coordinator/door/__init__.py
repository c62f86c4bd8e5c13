"""The hub's one door: TLS is passed through, unopened, to whom the client asks for by server name."""
