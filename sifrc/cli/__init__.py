"""The commands: thin, each in its own file, their imports inside, so that ``--help`` is quick."""
