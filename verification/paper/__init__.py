"""The printed numbers of the papers, in one place; nothing else in the project writes them down again."""
