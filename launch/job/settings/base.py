"""What all groups of settings share."""

from typing import Annotated

import pydantic
from pydantic import Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
# A function of the user's, as ``launch/job/user/code.py`` loads it.
FileFunction = Annotated[str, Field(pattern=r"\.py(:|$)|^[^:]*[./][^:]*:")]


class Settings(pydantic.BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True):
    """A group of settings; the text below a field is what ``--help`` says of it."""
