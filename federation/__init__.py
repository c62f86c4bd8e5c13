"""What hub and edge share: resource types, wire protocol, identities, names of metrics and log fields."""
