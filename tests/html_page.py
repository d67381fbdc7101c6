"""An HTML page taken apart; its tags must be nested."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags in their order (`/tag` at their end), attributes, texts, and the cells of each table's rows."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts, self.tables = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def values(self, *names):
        return [value for name, value in self.attributes if name in names]

    def words(self):
        """Texts without the white space around them."""
        return [text.strip() for text in self.texts if text.strip()]
