"""Cloud Run's control plane: services and revisions, what is refused, how they come to be what was asked for."""
