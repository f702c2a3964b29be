"""Answers as they are shown while they come: Markdown on a terminal, plain text elsewhere.

Nothing that was shown is ever moved or written again, except the one short line of a status. So
there is no flicker, a terminal may be resized at any time, and the scrollback has every line once.
Text is shown as soon as nothing that may follow can change what it means.
"""
