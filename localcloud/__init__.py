"""An embedded Google Cloud for one machine: Cloud Run, Artifact Registry and Logging, as the unmodified clients see them."""
