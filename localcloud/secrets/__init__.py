"""Secret Manager: the store of secrets and its service."""
