"""The base of every configuration section: typed, frozen, documented field by field."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A configuration section that lives next to the code it configures.

    Unknown keys are errors, values are validated, and the string under each field is its
    documentation.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )
