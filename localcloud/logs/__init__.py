"""Cloud Logging: entries, their store, the query language, the service."""
