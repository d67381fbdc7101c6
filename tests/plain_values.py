"""What JSON and YAML both can say."""

from hypothesis import strategies as st

_TEXTS = "ab :#-é"

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(_TEXTS, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(_TEXTS, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
