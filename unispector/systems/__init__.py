"""The systems that UniSpector is compared with, each behind the interface the benchmark judges."""
