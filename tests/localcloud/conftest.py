"""A local cloud of this folder's own, with a small test image in the session's registry."""

from fixtures import cloud, own_cloud, web_image

__all__ = ["cloud", "own_cloud", "web_image"]
