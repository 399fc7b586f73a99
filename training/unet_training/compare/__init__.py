"""unet-train compare: networks side by side, each trained, exported, proven and timed by the commands users type.

``points`` says which networks, ``steps`` runs the commands and reads what they write, ``result`` puts it together and
into a table, ``plot`` draws it, ``cli`` is the command.
"""
