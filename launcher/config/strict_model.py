"""The base of the models of recipe and cluster files, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class StrictModel(BaseModel):
    """Docstrings below the fields become the descriptions of the JSON schema."""

    model_config = ConfigDict(
        allow_inf_nan=False, extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


def _as_whole_number(value: Any) -> Any:
    """1e3 is a float to YAML and a whole number to people."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Write it behind Field(ge=...), which the JSON schema lacks otherwise.
AS_WHOLE_NUMBER = BeforeValidator(_as_whole_number)
WholeNumber = Annotated[int, AS_WHOLE_NUMBER]
Positive = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]
