"""What the assistant can do, one package a feature."""
