"""Write the documents of a release again, from its record."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.story import tell
from tasks.logbook import Logbook


@flow(name="documents", flow_run_name="{release}")
def documents(release: str) -> State[Any]:
    """Write the documents of one release again: the same record gives the same documents.

    Args:
        release: The release's id, such as 20261124-213112-3fa9c2.
    """
    return tell(Logbook.find(release))
