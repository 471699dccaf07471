"""`python3 -m hugespan`, or `python3 DIRECTORY` with the directory of this file, which needs no PYTHONPATH."""

import os
import sys

if __package__:
    from hugespan import _command
else:
    # As a directory: the package is made known under its name, without its neighbours.
    import importlib.util

    if "hugespan" not in sys.modules:
        _here = os.path.dirname(os.path.abspath(__file__))
        _spec = importlib.util.spec_from_file_location(
            "hugespan", os.path.join(_here, "__init__.py"), submodule_search_locations=[_here]
        )
        _module = importlib.util.module_from_spec(_spec)
        sys.modules["hugespan"] = _module
        _spec.loader.exec_module(_module)
    from hugespan import _command

if __name__ == "__main__":
    _command.main(as_directory=not __package__)
