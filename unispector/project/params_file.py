"""The text of `params.yaml`: rendered with a comment on every parameter, and edited so that comments stay."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import SingleQuotedScalarString
from ruamel.yaml.tokens import CommentToken

from unispector.config import Config, Section, parse_config
from unispector.errors import ConfigError

_HEAD = """Every knob of the pipeline. `make repro` reruns just the stages that a changed one concerns.
Keys, ranges, defaults and these comments are those of unispector/config/; an unknown key is refused."""

_BOUNDS = {
    "ge": "at least {:g}",
    "gt": "above {:g}",
    "le": "at most {:g}",
    "lt": "below {:g}",
    "multiple_of": "a multiple of {:g}",
}
"""How the bounds of a field read."""

_YAML_1_1, _TEXT = VersionedResolver(version=(1, 1)), "tag:yaml.org,2002:str"
"""What PyYAML takes a plain word for, which is not always what ruamel does: yes, off."""


class _Representer(RoundTripRepresenter):
    """Writes None as `null`, not as nothing."""


_Representer.add_representer(
    type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
)


def rendered(config: Config) -> str:
    """Render parameters as `params.yaml` has them, each on a line with a comment on what it means."""
    document = CommentedMap()
    _lay(document, _written(config), meanings(config))
    document.yaml_set_start_comment(_HEAD)
    for section in document:
        document.yaml_set_comment_before_after_key(section, before="\n")
    return _text(document)


def edited(content: bytes, values: Mapping[str, Any], wanted: Config, origin: str) -> bytes:
    """Put values into a file of parameters; its comments and its order stay.

    Args:
        values: by section and field; what the file does not have yet goes behind the last key there.
        wanted: what the file must say afterwards.

    Raises:
        ConfigError: the file would say something else, as with anchors, or is not UTF-8.
    """
    try:
        text = content.decode("utf-8")
        document = _yaml().load(text)
        # Of a file without a key ruamel keeps no comment.
        head, document = (text, CommentedMap()) if document is None else ("", document)
        _lay(document, values, meanings(wanted))
        result = (head + _text(document)).encode("utf-8")
        as_wanted = parse_config(result, origin) == wanted
    except (UnicodeDecodeError, YAMLError, ConfigError, RecursionError):
        as_wanted = False
    if not as_wanted:
        raise ConfigError(
            f"{origin}: cannot be rewritten as it stands, with anchors or in another encoding than UTF-8; "
            "bring it in order with `unispector params write`, then try again"
        )
    return result


def _written(config: Config) -> dict[str, Any]:
    """Return the parameters to write, as JSON: all but unset classes of a set."""
    values = config.model_dump(mode="json")
    for name, member in config.data.sets.items():
        values["data"]["sets"][name] = member.model_dump(mode="json", exclude_none=True)
    return values


def meanings(config: Config) -> dict[str, str]:
    """`section` or `section.field` -> what it means and which values it takes."""
    return dict(_meanings(config, ""))


def _meanings(section: Section, prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in type(section).model_fields.items():
        yield f"{prefix}{name}", _meaning(field)
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _meanings(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            for key, each in value.items():
                yield from _meanings(each, f"{prefix}{name}.{key}.")


def _meaning(field: FieldInfo) -> str:
    bounds = {
        kind: getattr(bound, kind) for kind in _BOUNDS for bound in field.metadata if hasattr(bound, kind)
    }
    if {"ge", "le"} <= bounds.keys():
        reach = ["{ge:g} to {le:g}".format(**bounds)]
    else:
        reach = [_BOUNDS[kind].format(value) for kind, value in bounds.items()]
    return "; ".join([field.description or "", *([", ".join(reach)] if reach else [])])


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.width = 1_000_000  # no line is folded
    yaml.preserve_quotes = True
    yaml.Representer = _Representer
    return yaml


def _text(document: CommentedMap) -> str:
    yaml, stream = _yaml(), io.StringIO()
    places = [value.lc.data for value in document.values() if _is_block(value) and value.lc.data]
    # A place is a key's line and column, then its value's.
    yaml.map_indent = next((column for place in places for _, column, *_ in place.values()), 2)
    yaml.dump(document, stream)
    return stream.getvalue()


def _lay(
    node: CommentedMap,
    values: Mapping[str, Any],
    comments: Mapping[str, str],
    prefix: str = "",
    *,
    flow: bool = False,
) -> None:
    """Put values into a mapping of a document, in flow style where it stands on one line with others."""
    flow = flow or (len(node) > 0 and bool(node.fa.flow_style()))
    for key, value in values.items():
        name, present = f"{prefix}{key}", node.get(key)
        if isinstance(value, Mapping) and isinstance(present, CommentedMap) and present:
            _lay(present, value, comments, f"{name}.", flow=flow)
        elif key in node and present != value:
            tail = _cut_tail(node, key)
            node[key] = _node(value, comments, name, flow=flow)
            if tokens := node.ca.items.get(key):
                tokens[3] = tokens[3] or None  # an empty list would indent a value
            if token := _token(node, key):
                # One space before it, however long the value.
                tokens[2] = CommentToken(token.value, CommentMark(0), None)
            _add_tail(node, key, tail)
        elif key not in node:
            # Behind the last section nothing comes next.
            tail = _cut_tail(node, list(node)[-1]) if node and prefix else ""
            node[key] = _node(value, comments, name, flow=flow)
            if name in comments and not flow:
                node.yaml_add_eol_comment(comments[name], key, column=0)
            _add_tail(node, key, tail)


def _node(value: Any, comments: Mapping[str, str], name: str, *, flow: bool) -> Any:
    """A value as it stands in a document: sections in lines, lists and what has no comment on one."""
    if isinstance(value, Mapping) and name in comments:
        section = CommentedMap()
        _lay(section, value, comments, f"{name}.", flow=flow)
        return section
    line: CommentedMap | CommentedSeq
    if isinstance(value, Mapping):
        line = CommentedMap({key: _node(inner, {}, "", flow=True) for key, inner in value.items()})
    elif isinstance(value, list):
        line = CommentedSeq([_node(inner, {}, "", flow=True) for inner in value])
    elif isinstance(value, str) and _YAML_1_1.resolve(ScalarNode, value, (True, False)) != _TEXT:
        return SingleQuotedScalarString(value)
    else:
        return value
    line.fa.set_flow_style()
    return line


def _is_block(value: Any) -> bool:
    return isinstance(value, CommentedMap | CommentedSeq) and len(value) > 0 and not value.fa.flow_style()


def _end(node: Any, key: Any) -> tuple[Any, Any]:
    """The mapping or list, and the key or number in it, at which ruamel keeps what follows a value."""
    while _is_block(node[key]):
        node = node[key]
        key = list(node)[-1] if isinstance(node, CommentedMap) else len(node) - 1
    return node, key


def _token(node: Any, key: Any) -> CommentToken | None:
    tokens = node.ca.items.get(key)
    token: CommentToken | None = tokens and tokens[2 if isinstance(node, CommentedMap) else 0]
    return token


def _cut_tail(node: Any, key: Any) -> str:
    """Take the lines that follow a value and the comment behind it: they belong to what comes next."""
    node, key = _end(node, key)
    token = _token(node, key)
    if token is None:
        return ""
    token.value, _, tail = token.value.partition("\n")
    if not token.value:
        node.ca.items[key][2 if isinstance(node, CommentedMap) else 0] = None
    return tail


def _add_tail(node: Any, key: Any, tail: str) -> None:
    if not tail:
        return
    node, key = _end(node, key)
    if token := _token(node, key):
        token.value = f"{token.value.removesuffix(chr(10))}\n{tail}"
    else:
        tokens = node.ca.items.setdefault(key, [None, None, None, None])
        tokens[2 if isinstance(node, CommentedMap) else 0] = CommentToken(f"\n{tail}", CommentMark(0), None)
