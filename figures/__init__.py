"""Pictures drawn from stored records, and the command line that ties the house together.

| files | what |
| --- | --- |
| `cli.py`, `commands/VERB.py` | the command line, a file for each verb; standing on all rooms, it lives in the last |
| `fig_TOPIC.py` | the pictures of a topic, registered by name, drawn from records and never recomputing anything |
| `page_TOPIC.py`, `pages.py` | pages of the report beside the claims |
| `registry.py`, `render.py`, `publish.py`, `style.py` | register, drawing, results folder, look |
| `gallery/` | pictures that the README and the documentation show |
"""

from deq.rooms import check_rooms, need

check_rooms()
need("figures", "verify", ["matplotlib"])
