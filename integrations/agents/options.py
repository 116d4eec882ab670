"""Further options of runtimes: `RuntimeConfig.extra`, checked against what each runtime knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import BadInput


class StrictOptions(BaseModel):
    """Options of a runtime; unknown names and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def read(cls, extra: Mapping[str, Any]) -> Self:
        """The options in `extra`; raises BadInput naming each one that is unknown or does not fit."""
        try:
            return cls.model_validate(dict(extra))
        except ValidationError as error:
            known = ", ".join(sorted(cls.model_fields))
            raise BadInput.of_fields(
                [
                    (
                        ".".join(["extra", *map(str, problem["loc"])]),
                        f"not an option of this runtime; it knows {known}"
                        if problem["type"] == "extra_forbidden"
                        else problem["msg"],
                    )
                    for problem in error.errors()
                ]
            ) from None


class ExtraOptions(StrictOptions):
    """Options that every runtime with the built-in tools knows."""

    shell_network: bool = Field(True, description="Whether the shell tool has the network.")
