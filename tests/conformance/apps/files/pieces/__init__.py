"""An app that reads files beside its modules and writes files where it runs."""
