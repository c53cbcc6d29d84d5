"""The kinds of values and of tables that all settings are made of."""

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Positive: TypeAlias = Annotated[int, Field(ge=1)]
Seconds: TypeAlias = Annotated[float, Field(gt=0.0)]
Share: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]


class Table(BaseModel):
    """A table of settings: a key that is not one of its fields is an error."""

    # Validators are built at first use: a third of the import time otherwise.
    # Errors do not repeat values: somebody may have written a key where its name was expected.
    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, hide_input_in_errors=True
    )
