"""Cloud Monitoring: what is recorded, how it is aligned and reduced, the service."""
