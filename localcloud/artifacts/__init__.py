"""Artifact Registry: the catalogue, its service, and the front that Docker pushes to."""
