__version__ = "0.1.0"

from .docstrings import describe_imports

describe_imports(__name__)
