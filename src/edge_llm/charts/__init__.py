"""Charts as SVG, and self-contained pages of them: numbers in, text out.

One file a chart. Each returns a `Chart`: the picture, what it shows in words, and its numbers as a
table. Nothing here measures or opens a program. matplotlib (the extra ``charts``) is imported when
a chart is drawn.
"""
