"""Claims of the papers, the evidence for or against each, and the report."""

from deq.rooms import check_rooms, need

check_rooms()
need("verification", "verify", ["scipy", "mpmath", "sympy", "flint", "tqdm", "jinja2", "latex2mathml", "safetensors",
                                "pooch", "sklearn"])
