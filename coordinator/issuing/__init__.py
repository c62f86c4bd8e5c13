"""What the hub vouches for: certificates and join tokens. Pure; the shells around it store and send."""
