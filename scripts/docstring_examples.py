"""A Griffe extension for the site: in docstrings, lines that begin with >>> and what they print become a code block."""

import re

import griffe

EXAMPLE = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)


class DocstringExamples(griffe.Extension):
    """Fences the examples of every docstring before it is parsed as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
