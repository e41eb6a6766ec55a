"""The version of the package, in one place; the changelog's newest entry must agree."""

__version__ = "0.1.0"
