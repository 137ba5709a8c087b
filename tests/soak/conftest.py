"""The long tests use the local cloud and the test image of tests/localcloud."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "localcloud"))

from fixtures import cloud, own_cloud, web_image

__all__ = ["cloud", "own_cloud", "web_image"]
