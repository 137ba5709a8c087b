"""The release file: what may be in it, how it is read, and what one run may change."""

from relais.config.changes import Changes as Changes
from relais.config.models import *  # noqa: F403
from relais.config.reading import load as load
from relais.config.reading import load_env_file as load_env_file
from relais.config.scalars import found_in as found_in
