"""The command line, installed as ``layerangles_cli``. One file a command; heavy imports inside the commands."""
