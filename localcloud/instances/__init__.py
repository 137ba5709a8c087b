"""Instances: containers on the Docker Engine, how many there are, and how each lives and ends."""
