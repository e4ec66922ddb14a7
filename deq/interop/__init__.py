"""Where torch's own machinery is met: closures, function transforms, compiled maps, autocast."""

from deq.interop import (
    private as private,  # checks, before anything else is imported, that this torch has what is needed
)
