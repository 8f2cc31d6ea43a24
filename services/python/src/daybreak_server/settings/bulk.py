"""Which files the tasks of pools of the kind `online` may read, and how large these files may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from daybreak_server.settings.rules.addresses import FilesUrl
from daybreak_server.settings.rules.numbers import Bytes, Count
from daybreak_server.settings.section import Section

PlaceName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]


class BulkSettings(Section):
    """The files that tasks of pools of the kind `online` read. The groups of such a pool process a file line by line,
    and answer requests at the same time."""

    places: dict[PlaceName, FilesUrl] = Field(
        default_factory=dict,
        description="Where tasks may read files: the key is the name of a place, and the value is `file:///folder` or "
        "`s3://bucket/prefix`. All clients may read all files there. Places on S3 use the settings of `artifacts.s3`. "
        "Tasks may also read artifacts of earlier tasks of the same tenant.",
    )
    max_bytes: Bytes = Field(
        1 << 30, description="Maximum size of a file in bytes. The group copies it to its disk."
    )
    max_line_bytes: Bytes = Field(
        1 << 20,
        description="Maximum length of a line in bytes. A longer line has an error in place of its result.",
    )
    max_lines: Count = Field(1_000_000, description="Maximum number of lines of a file.")
