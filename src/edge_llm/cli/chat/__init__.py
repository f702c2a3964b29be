"""``edge-llm chat``: a conversation in the terminal.

``verb.py`` has the options, ``loop.py`` what happens between two messages, ``session.py`` the state
of a conversation, ``commands.py`` what begins with a slash, ``editor.py`` the line editor, and
``rendering/`` how answers are shown.
"""

from edge_llm.cli.chat.verb import add_parser, run

__all__ = ["add_parser", "run"]
