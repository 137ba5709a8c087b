"""What one run changes over the release file; the fields make the form in the Prefect UI."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Changes(BaseModel):
    """What changes from one release to the next; an empty field keeps what the release file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(default="", title="Title", description="What this release is, in one line.", examples=["Phase P1 - Memory"])
    slug: str = Field(
        default="",
        title="Short name",
        description="In file names and in the revision's name: lower-case letters, digits and -.",
        examples=["p1-memory"],
    )
    tag: str = Field(
        default="",
        title="Image tag",
        description="May hold {timestamp}, {date}, {slug}, {service}, {commit}, {short_commit}.",
        examples=["deploy-p1-{timestamp}"],
    )
    by: str = Field(default="", title="Released by", description="Whom every document names.", examples=["Codex (cloud)"])
    changes: tuple[str, ...] = Field(
        default=(),
        title="Changes",
        description="One entry a line; a line that begins with '- ' is a part of the entry before it.",
        examples=[["P1.1 Memory in the background", "- MemoryTaskQueue with 2 workers"]],
    )
    next: tuple[str, ...] = Field(
        default=(), title="Next steps", description="As the documents name them.", examples=[["Watch the metrics for 24 h"]]
    )
    commit: str = Field(
        default="",
        title="Commit named",
        description="The commit that the documents name beside the one that is built.",
        examples=["588c5dc"],
    )
    commits: tuple[str, ...] = Field(
        default=(),
        title="Commits expected",
        description="Commits that must be part of what is released.",
        examples=[["4bde612", "588c5dc"]],
    )
    bake: str = Field(
        default="", title="Least time at a step", description="Such as 30s or 5m; for every step of the canary.", examples=["30s", "5m"]
    )
    deadline: str = Field(
        default="", title="Most time at a step", description="Such as 1m or 10m; not less than the least.", examples=["1m", "10m"]
    )
    watch: str = Field(
        default="",
        title="Watch afterwards",
        description="How long the fresh release is looked after, such as 1h or 24h.",
        examples=["1h", "24h"],
    )
    skip: tuple[str, ...] = Field(
        default=(), title="Checks to skip", description="By name; recorded as skipped, and by whom.", examples=[["all tests"]]
    )
    skipped_by: str = Field(default="", title="Skipped by", description="Who skips them; otherwise who releases.", examples=["FG"])

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_empty(cls, data: object) -> object:
        """A form sends null for a field that was cleared."""
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data
