"""The data plane: from a request on a loopback port to an instance and back."""
