"""The sentences of the story: each module is a noun, each task gathers, decides and applies; no task module imports another."""
