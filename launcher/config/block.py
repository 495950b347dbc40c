"""What the models of our files have in common: one block of keys, and its numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class StrictModel(BaseModel):
    """Docstrings below the fields become the descriptions of the JSON schema."""

    model_config = ConfigDict(
        allow_inf_nan=False, extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


def _whole(value: Any) -> Any:
    """1e3 is a float to YAML and a whole number to people."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


AS_WHOLE_NUMBER = BeforeValidator(
    _whole
)  # behind Field(ge=...), which the JSON schema lacks otherwise
WholeNumber = Annotated[int, AS_WHOLE_NUMBER]
Positive = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]
